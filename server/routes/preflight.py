"""`/v1/fine_tuning/preflight`: what would become of a job, before it is made. Owned here: the path."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from server.inspection import unless_left
from server.jobs.request import CreateJob
from server.preflighting import preflight
from server.services import CallerDep, ServicesDep

router = APIRouter(prefix="/v1/fine_tuning", tags=["fine tuning"])
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": CreateJob.model_json_schema()}}}}


@router.post("/preflight", openapi_extra=_BODY)
async def preflight_job(request: Request, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Does it fit, can its result be served, how long will it take? The body is that of a job; none is made."""
    return await unless_left(request, preflight(services, await request.body(), caller))
