"""Is the process there, does the engine answer, and how much has been done."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from server.jobs.listing import count_jobs
from server.services import ServicesDep
from serving import EngineState

log = logging.getLogger(__name__)
router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 as long as the server itself runs, whatever the engine does."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(services: ServicesDep) -> Response:
    """200 once the engine answers, else 503 with the engine's state."""
    state = services.engine.state
    ready = state is EngineState.READY and await services.engine.is_healthy()
    services.metrics.engine_up.set(ready)
    if ready:
        return JSONResponse({"status": "ready"})
    status = "unhealthy" if state is EngineState.READY else state.value
    return JSONResponse({"status": status}, 503, {"Retry-After": "2"})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesDep) -> Response:
    """The gateway's metrics in Prometheus' text format."""
    services.metrics.engine_up.set(services.engine.state is EngineState.READY)
    try:
        services.metrics.count_jobs(await services.database.run(count_jobs))
        services.metrics.database_up.set(1)
    except SQLAlchemyError as error:  # the other figures are wanted most just now
        log.warning("jobs can't be counted: %s", error)
        services.metrics.database_up.set(0)
    return Response(services.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
