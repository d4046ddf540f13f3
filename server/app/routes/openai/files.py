"""`/v1/files` as in OpenAI's API. https://platform.openai.com/docs/api-reference/files"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from server.access.callers import KeyIdDep
from server.app.services import Services, ServicesDep
from server.files.contents import CHUNK_BYTES, IncomingFile
from server.files.form import openapi_form, read_form
from server.files.rules import (
    MAX_EXPIRY_S,
    MIN_EXPIRY_S,
    PURPOSES,
    choose_expiry_s,
    clean_filename,
    parse_purpose,
    refuse_wrong_content,
    refuse_wrong_extension,
)
from server.files.store import file_object, get_file, is_live
from server.storage.list_pages import build_list_page, fetch_page
from server.storage.tables import FileRow
from server.wire.errors import BadRequest

router = APIRouter(prefix="/v1", tags=["files"])

MEDIA_TYPES = {
    ".jsonl": "application/jsonl",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
"""Content types that are sent as they are. Others are sent as bytes: an HTML page or SVG with a script must not run on
our origin."""
FORM = openapi_form(
    ["file", "purpose"],
    {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": list(PURPOSES)},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": MIN_EXPIRY_S, "maximum": MAX_EXPIRY_S},
    },
)


@router.post("/files", openapi_extra=FORM)
async def create_file(request: Request, services: ServicesDep, key_id: KeyIdDep) -> dict[str, Any]:
    """Upload a file. Files for fine-tuning must be JSONL; their records are checked in the background."""
    incoming = await run_in_threadpool(services.files.contents.create_incoming)
    with incoming:
        form = await read_form(request, "file", incoming, services.settings.max_file_bytes)
        purpose = parse_purpose(form.fields.pop("purpose", None))
        asked_s = _expires_after_s(form.fields)
        filename = clean_filename(form.filename or "")
        refuse_wrong_extension(filename, purpose)
        stored = await run_in_threadpool(_store, services, incoming, filename, purpose, key_id, asked_s)
    services.files.wake()
    return stored


@router.get("/files")
async def list_files(
    services: ServicesDep,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> dict[str, Any]:
    """List the files, newest first."""

    def read(session: Session) -> dict[str, Any]:
        where = () if purpose is None else (FileRow.purpose == purpose.replace("\0", ""),)
        ascending = order == "asc"
        rows, has_more = fetch_page(
            session, FileRow, *where, after=after, limit=limit, visible=is_live(), ascending=ascending
        )
        return build_list_page([file_object(row) for row in rows], has_more=has_more)

    return await services.database.run(read)


@router.get("/files/{file_id}")
async def retrieve_file(file_id: str, services: ServicesDep) -> dict[str, Any]:
    """Get a file."""
    return file_object(await services.database.run(lambda session: get_file(session, file_id)))


@router.delete("/files/{file_id}")
async def delete_file(file_id: str, services: ServicesDep) -> dict[str, Any]:
    """Delete a file permanently. Jobs that use it keep what they need."""
    await services.files.delete(file_id)
    return {"id": file_id, "object": "file", "deleted": True}


@router.get("/files/{file_id}/content")
async def retrieve_file_content(file_id: str, services: ServicesDep) -> StreamingResponse:
    """Download a file, unchanged."""
    row = await services.database.run(lambda session: get_file(session, file_id))
    try:
        file = await run_in_threadpool(services.files.path(row.id).open, "rb")
    except FileNotFoundError:
        await services.database.run(lambda session: get_file(session, file_id))  # where it was deleted just now: a 404
        raise
    headers = {
        "Content-Length": str(row.bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(row.filename, safe='')}",
        "X-Content-Type-Options": "nosniff",
    }
    media_type = MEDIA_TYPES.get(PurePosixPath(row.filename).suffix.lower(), "application/octet-stream")
    return StreamingResponse(_chunks(file), media_type=media_type, headers=headers)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _store(
    services: Services,
    incoming: IncomingFile,
    filename: str,
    purpose: str,
    key_id: str | None,
    asked_s: int | None,
) -> dict[str, Any]:
    """Return the stored file. Blocks."""
    incoming.flush()
    refuse_wrong_content(incoming.path, purpose)
    with services.database.session() as session:
        row = services.files.publish(
            session,
            incoming,
            filename=filename,
            purpose=purpose,
            created_by=key_id,
            expires_after_s=choose_expiry_s(purpose, asked_s),
        )
    return file_object(row)


def _expires_after_s(fields: dict[str, str]) -> int | None:
    """Return the seconds until the file expires, from `fields`, which must have no other fields."""
    anchor, seconds = fields.pop("expires_after[anchor]", None), fields.pop("expires_after[seconds]", None)
    if fields:
        name = next(iter(fields))[:100]
        raise BadRequest(f"The form has an unknown field {name!r}. Remove it.", code="unknown_parameter", param=name)
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise BadRequest(
            "expires_after[anchor] must be created_at.", code="invalid_value", param="expires_after[anchor]"
        )
    if not (seconds and seconds.isascii() and seconds.isdigit() and len(seconds) < 10):
        seconds = "0"
    if not MIN_EXPIRY_S <= int(seconds) <= MAX_EXPIRY_S:
        raise BadRequest(
            f"expires_after[seconds] must be a whole number from {MIN_EXPIRY_S} to {MAX_EXPIRY_S}.",
            code="invalid_value",
            param="expires_after[seconds]",
        )
    return int(seconds)
