"""Inspection of training data: `/v1/files/{file_id}/report`, `/examples` and `/clean`, `/v1/fine_tuning/preflight`.

Not in OpenAI's API. This module has the paths and limits.
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

BaseQuery = Annotated[str | None, Query(max_length=300, description="Model whose base model's tokenizer is used.")]


@router.post(f"{_FILE}/report", tags=["files"])
async def report_file(
    file_id: str, request: Request, services: ServicesDep, body: ReportQuestion | None = None
) -> dict[str, Any]:
    """Report the file's contents, and every error with its line. Runs in a child process, which stops if the client
    disconnects."""
    return await run_until_disconnect(request, services.file_reports.report(file_id, body or ReportQuestion()))


@router.get(f"{_FILE}/examples", tags=["files"])
async def list_examples(
    file_id: str,
    request: Request,
    services: ServicesDep,
    base_model: BaseQuery = None,
    offset: Annotated[int, Query(ge=0, le=2**31, description="Examples to skip.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_EXAMPLES)] = 10,
    max_length: Annotated[int | None, Query(ge=8, le=10_000_000, description="Truncate at this many tokens.")] = None,
) -> dict[str, Any]:
    """Show examples as the base model will see them: what is trained on, context, or truncated."""
    config = {} if max_length is None else {"max_length": max_length}
    work = services.file_reports.examples(file_id, base_model, config, offset, limit)
    return await run_until_disconnect(request, work)


@router.post(f"{_FILE}/clean", tags=["files"])
async def clean_file(
    file_id: str, request: Request, services: ServicesDep, key_id: KeyIdDep, body: CleaningQuestion | None = None
) -> dict[str, Any]:
    """Create a cleaned copy of the file, with a report of what was dropped and why. The file itself isn't changed."""
    settings = (body or CleaningQuestion()).settings
    return await run_until_disconnect(request, services.file_reports.clean(file_id, settings, key_id))


@router.post("/fine_tuning/preflight", tags=["fine tuning"], openapi_extra=_BODY)
async def preflight_job(request: Request, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Check a job without creating it: does it fit, can the result be served, how long will it take? Takes the body of
    a job."""
    return await run_until_disconnect(
        request,
        preflight(services.database, services.files, services.inspections, services.jobs, await request.body(), caller),
    )
