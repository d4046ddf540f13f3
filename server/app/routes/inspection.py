"""What is to be trained on: `/v1/files/{file_id}/report`, `/examples` and `/clean`, `/v1/fine_tuning/preflight`.

Ours, beside OpenAI's. Owned here: paths and limits.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from server.access.callers import CallerDep, KeyIdDep
from server.app.services import ServicesDep
from server.inspection.file_reports import MOST_EXAMPLES, CleaningQuestion, ReportQuestion
from server.inspection.preflight import preflight
from server.jobs.create.body import CreateJob
from server.wire.disconnect import run_until_disconnect

router = APIRouter(prefix="/v1")
_FILE = "/files/{file_id}"
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": CreateJob.model_json_schema()}}}}

BaseQuery = Annotated[str | None, Query(max_length=300, description="A model: its base's tokenizer is used.")]


@router.post(f"{_FILE}/report", tags=["files"])
async def report_file(
    file_id: str, request: Request, services: ServicesDep, body: ReportQuestion | None = None
) -> dict[str, Any]:
    """What the file holds, and every fault with its line. A process looks; it ends when the caller leaves."""
    return await run_until_disconnect(request, services.file_reports.report(file_id, body or ReportQuestion()))


@router.get(f"{_FILE}/examples", tags=["files"])
async def list_examples(
    file_id: str,
    request: Request,
    services: ServicesDep,
    base_model: BaseQuery = None,
    offset: Annotated[int, Query(ge=0, le=2**31, description="Examples that are passed over.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_EXAMPLES)] = 10,
    max_length: Annotated[int | None, Query(ge=8, le=10_000_000, description="Tokens; what is beyond is cut.")] = None,
) -> dict[str, Any]:
    """Examples as the base model will see them: which part is learned, which is context, what is cut off."""
    config = {} if max_length is None else {"max_length": max_length}
    work = services.file_reports.examples(file_id, base_model, config, offset, limit)
    return await run_until_disconnect(request, work)


@router.post(f"{_FILE}/clean", tags=["files"])
async def clean_file(
    file_id: str, request: Request, services: ServicesDep, key_id: KeyIdDep, body: CleaningQuestion | None = None
) -> dict[str, Any]:
    """A cleaned copy of the file as a new file, and what went and why. The file itself stays as it is."""
    settings = (body or CleaningQuestion()).settings
    return await run_until_disconnect(request, services.file_reports.clean(file_id, settings, key_id))


@router.post("/fine_tuning/preflight", tags=["fine tuning"], openapi_extra=_BODY)
async def preflight_job(request: Request, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Does it fit, can its result be served, how long will it take? The body is that of a job; none is made."""
    return await run_until_disconnect(
        request,
        preflight(services.database, services.files, services.inspections, services.jobs, await request.body(), caller),
    )
