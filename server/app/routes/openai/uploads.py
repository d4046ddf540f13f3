"""`/v1/uploads`: large files in parts. https://platform.openai.com/docs/api-reference/uploads"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.concurrency import run_in_threadpool

from server.access.callers import KeyIdDep
from server.app.services import ServicesDep
from server.files.form import openapi_form, read_form
from server.files.rules import MAX_EXPIRY_S, MIN_EXPIRY_S, clean_filename, parse_purpose, refuse_wrong_extension
from server.files.uploads import LIFETIME_S, MAX_PART_BYTES, Uploads, add_upload
from server.storage.tables import UploadRow, new_id, now_s
from server.wire.errors import BadRequest

router = APIRouter(prefix="/v1", tags=["uploads"])

Id = Annotated[str, StringConstraints(min_length=1, max_length=100)]
FORM = openapi_form(["data"], {"data": {"type": "string", "format": "binary"}})


class ExpiresAfter(BaseModel):
    """When the finished file expires."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(strict=True, ge=MIN_EXPIRY_S, le=MAX_EXPIRY_S)


class CreateUpload(BaseModel):
    """The body of `POST /v1/uploads`."""

    model_config = ConfigDict(extra="forbid")

    filename: str = Field(min_length=1, max_length=4096)
    purpose: str
    bytes: int = Field(strict=True, ge=1, description="Size of the whole file.")
    mime_type: str = Field(
        pattern=r"^[\x20-\x7e]{1,255}$", description="Stored, but not used: the format is detected from the content."
    )
    expires_after: ExpiresAfter | None = None


class CompleteUpload(BaseModel):
    """The body of `POST /v1/uploads/{id}/complete`."""

    model_config = ConfigDict(extra="forbid")

    part_ids: list[Id] = Field(min_length=1, max_length=100_000, description="Part ids in the order of the file.")
    md5: str | None = Field(None, description="MD5 of the whole file, in hexadecimal.")


@router.post("/uploads")
async def create_upload(body: CreateUpload, services: ServicesDep, key_id: KeyIdDep) -> dict[str, Any]:
    """Create an upload for a file in parts, to be completed within an hour."""
    purpose, filename = parse_purpose(body.purpose), clean_filename(body.filename)
    refuse_wrong_extension(filename, purpose, param="filename")
    if body.bytes > services.settings.max_upload_bytes:
        raise BadRequest(
            f"bytes is {body.bytes}, but an upload may have at most {services.settings.max_upload_bytes}. Upload a "
            "smaller file, or raise the setting max_upload_bytes.",
            code="file_too_large",
            param="bytes",
        )
    now = now_s()
    row = UploadRow(
        id=new_id("upload"),
        filename=filename,
        purpose=purpose,
        bytes=body.bytes,
        mime_type=body.mime_type,
        status="pending",
        created_at=now,
        expires_at=now + LIFETIME_S,
        file_expires_after_s=body.expires_after and body.expires_after.seconds,
        created_by=key_id,
    )
    return await services.database.run(lambda session: add_upload(session, row))


@router.post("/uploads/{upload_id}/parts", openapi_extra=FORM)
async def create_upload_part(upload_id: str, request: Request, services: ServicesDep) -> dict[str, Any]:
    """Add a part of up to 64 MiB. Parts can be sent in any order and in parallel."""
    uploads = Uploads(services.files, services.database)
    await uploads.refuse_ended(upload_id)
    incoming = await run_in_threadpool(services.files.contents.create_incoming)
    with incoming:
        await read_form(request, "data", incoming, MAX_PART_BYTES)
        return await uploads.add_part(upload_id, incoming)


@router.post("/uploads/{upload_id}/complete")
async def complete_upload(upload_id: str, body: CompleteUpload, services: ServicesDep) -> dict[str, Any]:
    """Complete the upload: create a file from the parts in the given order."""
    return await Uploads(services.files, services.database).complete(upload_id, body.part_ids, body.md5)


@router.post("/uploads/{upload_id}/cancel")
async def cancel_upload(upload_id: str, services: ServicesDep) -> dict[str, Any]:
    """Cancel an upload and delete its parts."""
    return await Uploads(services.files, services.database).cancel(upload_id)
