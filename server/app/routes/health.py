"""Health checks and metrics."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from server.app.services import ServicesDep
from server.inference.metrics.engines import PASSED_ON, fetch_engine_metrics
from server.jobs.listing import count_jobs

log = logging.getLogger(__name__)
router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Return 200 as long as the server is running, whatever the engines' state."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(services: ServicesDep) -> Response:
    """Return 200 if every base model has a ready engine, else 503 with the state of those that don't."""
    down = await services.fleet.bases_down()
    if not down:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": next(iter(down.values())), "bases_down": down}, 503, {"Retry-After": "2"})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesDep, request: Request) -> Response:
    """Get the metrics of the gateway and, with a label `engine`, of its engines, in Prometheus' text format."""
    services.metrics.set_engines(services.registry.replicas)
    try:
        services.metrics.count_jobs(await services.database.run(count_jobs))
        services.metrics.database_up.set(1)
    except SQLAlchemyError as error:  # the other figures are wanted most just now
        log.warning("can't count the jobs: %s", error)
        services.metrics.database_up.set(0)
    is_passed_on = any(name in request.headers for name in PASSED_ON)
    theirs = b"" if is_passed_on else await fetch_engine_metrics(services.registry.replicas)
    return Response(services.metrics.render() + theirs, media_type=CONTENT_TYPE_LATEST)
