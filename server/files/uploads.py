"""Uploads in parts: their rows, their parts on disk, and the file that they become, exactly once.

https://platform.openai.com/docs/api-reference/uploads
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from server.files.contents import IncomingFile, copy, remove
from server.files.rules import choose_expiry_s, refuse_wrong_content
from server.files.store import FileStore, file_object, is_live, remove_if_rolled_back
from server.storage.database import Database
from server.storage.tables import FileRow, UploadPartRow, UploadRow, new_id, now_s
from server.wire.errors import BadRequest, Conflict, NotFound

LIFETIME_S = 3600
"""Seconds that an upload waits for its parts."""
MAX_PART_BYTES = 64 * 2**20


def add_upload(session: Session, row: UploadRow) -> dict[str, Any]:
    """Store a new upload, waiting for its parts, and return its object."""
    session.add(row)
    session.flush()
    return upload_object(row, None)


def upload_object(row: UploadRow, file: FileRow | None) -> dict[str, Any]:
    """Return the upload as the API's object. https://platform.openai.com/docs/api-reference/uploads/object"""
    return {
        "id": row.id,
        "object": "upload",
        "bytes": row.bytes,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "filename": row.filename,
        "purpose": row.purpose,
        "status": _get_status(row),
        "file": None if file is None else file_object(file),
    }


def part_object(row: UploadPartRow) -> dict[str, Any]:
    """Return the part as the API's object. https://platform.openai.com/docs/api-reference/uploads/part-object"""
    return {"id": row.id, "object": "upload.part", "created_at": row.created_at, "upload_id": row.upload_id}


class Uploads:
    """The operations on uploads."""

    def __init__(self, files: FileStore, database: Database) -> None:
        self._files, self._database = files, database

    async def refuse_ended(self, upload_id: str) -> None:
        """Check that parts may be added.

        Raises:
            NotFound: there is no such upload.
            Conflict: it is completed, cancelled or expired.
        """
        await self._database.run(lambda session: _refuse_ended(_get_upload(session, upload_id)))

    async def add_part(self, upload_id: str, incoming: IncomingFile) -> dict[str, Any]:
        """Store this content as a new part and return its object.

        Raises:
            NotFound, Conflict: as `refuse_ended`.
            BadRequest: the parts are far larger together than was announced.
        """
        part = UploadPartRow(id=new_id("part"), upload_id=upload_id, bytes=incoming.bytes, created_at=now_s())
        target = self._files.contents.part_path(part.id)

        def work(session: Session) -> dict[str, Any]:
            incoming.publish(target)
            remove_if_rolled_back(session, target)
            return _add_part(session, part)

        return await self._database.run(work)

    async def complete(self, upload_id: str, part_ids: Sequence[str], md5: str | None) -> dict[str, Any]:
        """Complete the upload and return it with its file; completing it again returns the same.

        Raises:
            NotFound: there is no such upload.
            Conflict: it is cancelled or expired.
            BadRequest: the parts don't add up to the announced file; the upload stays pending.
        """
        async with self._files.lock(upload_id):
            row, parts, file = await self._database.run(lambda session: _read_upload(session, upload_id))
            if row.status == "completed":
                return upload_object(row, file)
            _refuse_ended(row)
            ordered = _order_parts(parts, part_ids)
            _refuse_wrong_size(row, sum(part.bytes for part in ordered))
            completed = await run_in_threadpool(self._assemble_file, row, ordered, md5)
            await self._remove_contents([part.id for part in parts])
            return completed

    async def cancel(self, upload_id: str) -> dict[str, Any]:
        """Cancel the upload and return it; cancelling it again returns the same.

        Raises:
            NotFound: there is no such upload.
            Conflict: it is completed or expired.
        """
        cancelled, part_ids = await self._database.run(lambda session: _cancel(session, upload_id))
        await self._remove_contents(part_ids)
        return cancelled

    async def _remove_contents(self, part_ids: Sequence[str]) -> None:
        """Remove the contents of the parts; the sweep removes their rows."""
        await run_in_threadpool(remove, [self._files.contents.part_path(part_id) for part_id in part_ids])
        self._files.wake()

    def _assemble_file(self, row: UploadRow, parts: Sequence[UploadPartRow], md5: str | None) -> dict[str, Any]:
        """Join the parts and store them as a file. Blocks."""
        with self._files.contents.create_incoming() as incoming:
            try:
                for part in parts:
                    copy(self._files.contents.part_path(part.id), incoming)
            except FileNotFoundError as error:
                raise Conflict(
                    f"The upload {row.id!r} was cancelled, completed or expired in the meantime.",
                    code="upload_not_pending",
                ) from error
            incoming.flush()
            _refuse_wrong_md5(incoming, md5)
            refuse_wrong_content(incoming.path, row.purpose)
            with self._database.session() as session:
                return self._publish_file(session, row, incoming)

    def _publish_file(self, session: Session, row: UploadRow, incoming: IncomingFile) -> dict[str, Any]:
        file = self._files.publish(
            session,
            incoming,
            filename=row.filename,
            purpose=row.purpose,
            created_by=row.created_by,
            expires_after_s=choose_expiry_s(row.purpose, row.file_expires_after_s),
        )
        completion = update(UploadRow).where(*_is_pending(row.id)).values(status="completed", file_id=file.id)
        if not _execute_update(session, completion):  # raising rolls back, which removes the new file
            raise Conflict(
                f"The upload {row.id!r} was cancelled, completed or expired in the meantime.", code="upload_not_pending"
            )
        return upload_object(row, file) | {"status": "completed"}


def _get_upload(session: Session, upload_id: str) -> UploadRow:
    row = session.get(UploadRow, upload_id)
    if row is None:
        raise NotFound(f"No such Upload object: {upload_id[:200]}.", code="upload_not_found", param="upload_id")
    return row


def _get_status(row: UploadRow) -> str:
    return "expired" if row.status == "pending" and row.expires_at <= now_s() else row.status


def _refuse_ended(row: UploadRow) -> None:
    if (status := _get_status(row)) != "pending":
        raise Conflict(
            f"The upload {row.id!r} is {status}, but only a pending one can be continued. Create a new one: "
            "POST /v1/uploads.",
            code="upload_not_pending",
            param="upload_id",
        )


def _is_pending(upload_id: str) -> tuple[Any, ...]:
    return UploadRow.id == upload_id, UploadRow.status == "pending", UploadRow.expires_at > now_s()


def _execute_update(session: Session, statement: Any) -> bool:
    result: Any = session.execute(statement)
    return bool(result.rowcount)


def _add_part(session: Session, part: UploadPartRow) -> dict[str, Any]:
    # Changes nothing, but locks the upload until the commit: it can't be completed or cancelled meanwhile.
    if not _execute_update(session, update(UploadRow).where(*_is_pending(part.upload_id)).values(status="pending")):
        _refuse_ended(_get_upload(session, part.upload_id))
    announced = session.scalars(select(UploadRow.bytes).where(UploadRow.id == part.upload_id)).one()
    stored_bytes = session.scalar(
        select(func.coalesce(func.sum(UploadPartRow.bytes), 0)).where(UploadPartRow.upload_id == part.upload_id)
    )
    # A client that lost a response sends the part again, so somewhat more than announced must be accepted.
    if int(stored_bytes or 0) + part.bytes > 2 * announced + MAX_PART_BYTES:
        raise BadRequest(
            f"The parts of the upload {part.upload_id!r} have more than twice its {announced} bytes. Complete it, "
            "or create an upload with the right `bytes`.",
            code="too_many_bytes",
            param="data",
        )
    session.add(part)
    session.flush()
    return part_object(part)


def _read_upload(session: Session, upload_id: str) -> tuple[UploadRow, list[UploadPartRow], FileRow | None]:
    # Parts first: if they are gone because another request ended the upload, the status shows it.
    parts = list(session.scalars(select(UploadPartRow).where(UploadPartRow.upload_id == upload_id)))
    row = _get_upload(session, upload_id)
    file = session.scalar(select(FileRow).where(FileRow.id == row.file_id, is_live())) if row.file_id else None
    return row, parts, file


def _order_parts(parts: Sequence[UploadPartRow], part_ids: Sequence[str]) -> list[UploadPartRow]:
    known = {part.id: part for part in parts}
    for place, part_id in enumerate(part_ids):
        if part_id not in known:
            raise BadRequest(
                f"The upload has no part {part_id[:100]!r}. Use the ids that were returned for its parts.",
                code="part_not_found",
                param=f"part_ids[{place}]",
            )
    if len(set(part_ids)) != len(part_ids):
        raise BadRequest(
            "part_ids has the same part twice. List each part once.", code="duplicate_part", param="part_ids"
        )
    return [known[part_id] for part_id in part_ids]


def _refuse_wrong_size(row: UploadRow, size: int) -> None:
    if size != row.bytes:
        raise BadRequest(
            f"The parts have {size} bytes in total, but the upload was created for {row.bytes}. Add or leave out "
            "parts, or create a new upload.",
            code="wrong_number_of_bytes",
            param="part_ids",
        )


def _refuse_wrong_md5(incoming: IncomingFile, md5: str | None) -> None:
    if md5 is None:
        return
    with incoming.path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5.strip().lower():
        raise BadRequest(
            f"The MD5 of the parts is {found}, not {md5[:100]!r}. Check their order, or send them again.",
            code="md5_mismatch",
            param="md5",
        )


def _cancel(session: Session, upload_id: str) -> tuple[dict[str, Any], Sequence[str]]:
    cancelled = _execute_update(session, update(UploadRow).where(*_is_pending(upload_id)).values(status="cancelled"))
    row = _get_upload(session, upload_id)
    if not cancelled and row.status != "cancelled":
        _refuse_ended(row)
    return upload_object(row, None), session.scalars(
        select(UploadPartRow.id).where(UploadPartRow.upload_id == upload_id)
    ).all()
