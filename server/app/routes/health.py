"""Is the process there, does the engine answer, and how much has been done."""

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
    """200 as long as the server itself runs, whatever the engine does."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(services: ServicesDep) -> Response:
    """200 once every base model has an engine that answers, else 503 with the state of each one that hasn't."""
    down = await services.fleet.bases_down()
    if not down:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": next(iter(down.values())), "bases_down": down}, 503, {"Retry-After": "2"})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesDep, request: Request) -> Response:
    """The gateway's metrics and its engines' own, these with a label `engine`, in Prometheus' text format."""
    services.metrics.set_engines(services.registry.replicas)
    try:
        services.metrics.count_jobs(await services.database.run(count_jobs))
        services.metrics.database_up.set(1)
    except SQLAlchemyError as error:  # the other figures are wanted most just now
        log.warning("jobs can't be counted: %s", error)
        services.metrics.database_up.set(0)
    is_passed_on = any(name in request.headers for name in PASSED_ON)
    theirs = b"" if is_passed_on else await fetch_engine_metrics(services.registry.replicas)
    return Response(services.metrics.render() + theirs, media_type=CONTENT_TYPE_LATEST)
