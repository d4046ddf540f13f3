"""`/v1/files/{file_id}/report`, `/examples` and `/clean`: ours, beside OpenAI's files. Owned here: paths and limits."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from server import inspected_files
from server.inspected_files import MOST_EXAMPLES, CleaningQuestion, ReportQuestion
from server.inspection import unless_left
from server.services import KeyIdDep, ServicesDep

router = APIRouter(prefix="/v1/files/{file_id}", tags=["files"])

BaseQuery = Annotated[str | None, Query(max_length=300, description="A model: its base's tokenizer is used.")]


@router.post("/report")
async def report_file(
    file_id: str, request: Request, services: ServicesDep, body: ReportQuestion | None = None
) -> dict[str, Any]:
    """What the file holds, and every fault with its line. A process looks; it ends when the caller leaves."""
    return await unless_left(request, inspected_files.report(services, file_id, body or ReportQuestion()))


@router.get("/examples")
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
    work = inspected_files.examples(services, file_id, base_model, config, offset, limit)
    return await unless_left(request, work)


@router.post("/clean")
async def clean_file(
    file_id: str, request: Request, services: ServicesDep, key_id: KeyIdDep, body: CleaningQuestion | None = None
) -> dict[str, Any]:
    """A cleaned copy of the file as a new file, and what went and why. The file itself stays as it is."""
    settings = (body or CleaningQuestion()).settings
    return await unless_left(request, inspected_files.clean(services, file_id, settings, key_id))
