"""Files on disk and their rows: one folder, each content under its file's id. Knows no HTTP but the errors it raises.

A content is there before its row and goes after it, so that a row always has one; what a death in between leaves
without a row is swept away at start. The table is the list of what is to be checked: nothing is only in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, delete, event, or_, select, update
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from server.database import Database
from server.errors import NotFound
from server.file_check import COMMAND, FileCheckError, check_file
from server.file_contents import Contents, Incoming, copy, remove
from server.file_rules import FINE_TUNE
from server.tables import FileRow, UploadPartRow, UploadRow, new_id, now_s

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 30.0
"""Seconds between two looks for what has expired. It answers as unknown at once; this frees the disk."""
AFTER_FAULT_S = 1.0


def live() -> ColumnElement[bool]:
    """The condition of a file that hasn't expired."""
    return or_(FileRow.expires_at.is_(None), FileRow.expires_at > now_s())


def get_file(session: Session, file_id: str) -> FileRow:
    """The file of that id.

    Raises:
        NotFound: there is none, or it has expired.
    """
    row = session.scalar(select(FileRow).where(FileRow.id == file_id, live()))
    if row is None:
        raise NotFound(
            f"No such File object: {file_id[:200]}. GET /v1/files lists them.", code="file_not_found", param="id"
        )
    return row


def file_object(row: FileRow) -> dict[str, Any]:
    """The file on the wire. https://platform.openai.com/docs/api-reference/files/object"""
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "filename": row.filename,
        "purpose": row.purpose,
        "status": row.status,
        "status_details": row.status_details,
    }


class FileStore:
    """The contents of files, and what is done with them beside requests: checks and expiry."""

    def __init__(self, files_dir: Path, database: Database, *, check_command: Sequence[str] = COMMAND) -> None:
        """files_dir: created if absent, for our eyes only. check_command: the process that checks a file."""
        self.contents = Contents(files_dir)
        self._database, self._check_command = database, tuple(check_command)
        self._woken = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def path(self, file_id: str) -> Path:
        """Where the content of this file lies. The id is one of a row, never a client's word."""
        return self.contents.path(file_id)

    def lock(self, upload_id: str) -> asyncio.Lock:
        """Spares double work on one upload; that it is done once is the database's business."""
        return self._locks.setdefault(upload_id, asyncio.Lock())

    def adopt(self, session: Session, source: Path, *, filename: str, purpose: str, created_by: str | None) -> FileRow:
        """The new, processed file whose content is a durable copy of `source`."""
        with self.contents.incoming() as incoming:
            copy(source, incoming)
            return self.publish(session, incoming, filename=filename, purpose=purpose, created_by=created_by)

    def publish(
        self,
        session: Session,
        incoming: Incoming,
        *,
        filename: str,
        purpose: str,
        created_by: str | None,
        expires_after_s: int | None = None,
    ) -> FileRow:
        """The new file with this content, which is removed again if the transaction is rolled back.

        For purpose fine-tune it is `uploaded`, and checked once it is committed and `wake` called; else `processed`.
        """
        created_at = now_s()
        row = FileRow(
            id=new_id("file-"),
            filename=filename,
            purpose=purpose,
            bytes=incoming.bytes,
            sha256=incoming.sha256,
            status="uploaded" if purpose == FINE_TUNE else "processed",
            created_at=created_at,
            expires_at=None if expires_after_s is None else created_at + expires_after_s,
            created_by=created_by,
        )
        target = self.path(row.id)
        incoming.publish(target)  # before the row: the database isn't locked while the disk is waited for
        event.listen(session, "after_rollback", lambda _session: target.unlink(missing_ok=True), once=True)
        session.add(row)
        session.flush()
        return row

    async def delete(self, file_id: str) -> None:
        """Deletes the file and its content. What a job was given of it stays with the job.

        Raises:
            NotFound: there is none, or it has expired.
        """

        def work(session: Session) -> None:
            row = get_file(session, file_id)
            session.execute(delete(FileRow).where(FileRow.id == row.id))

        await self._database.run(work)
        await run_in_threadpool(remove, [self.path(file_id)])

    def wake(self) -> None:
        """Says that there is a file to check. From the event loop."""
        self._woken.set()

    async def start(self) -> None:
        """Goes on with checks that were under way, and looks for what has expired from now on."""
        ids = await self._database.run(
            lambda session: (set(session.scalars(select(FileRow.id))), set(session.scalars(select(UploadPartRow.id))))
        )
        if swept := await run_in_threadpool(self.contents.sweep, *ids):
            log.info("%d contents without a file were left over; they are removed", swept)
        self._work = asyncio.create_task(self._go_on())

    async def stop(self) -> None:
        """Returns when nothing is under way any more."""
        if self._work is not None:
            self._work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._work

    async def _go_on(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._sweep()
                while row := await self._database.run(_next_unchecked):
                    await self._check(row)
            except Exception:  # the outermost catcher of this task: the next round tries again
                log.exception("files could not be looked after")
                await asyncio.sleep(AFTER_FAULT_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_EVERY_S):  # `wait_for` can lose a cancellation (gh-86296)
                    await self._woken.wait()

    async def _check(self, row: FileRow) -> None:
        try:
            result = await check_file(self.path(row.id), command=self._check_command)
            details = f"{result.found} fault(s): {result.told()}" if result.found else None
        except (FileCheckError, OSError) as error:
            log.warning("%s could not be checked: %s", row.id, error)
            details = f"The file could not be checked. {error} Then upload it again."
        changed = (
            update(FileRow)
            .where(FileRow.id == row.id, FileRow.status == "uploaded")
            .values(status="processed" if details is None else "error", status_details=details)
        )
        await self._database.run(lambda session: session.execute(changed))

    async def _sweep(self) -> None:
        """Frees what has expired: rows first, then contents."""
        file_ids, part_ids = await self._database.run(_forget_expired)
        gone = [self.path(file_id) for file_id in file_ids]
        gone += [self.contents.part_path(part_id) for part_id in part_ids]
        await run_in_threadpool(remove, gone)


def _next_unchecked(session: Session) -> FileRow | None:
    waiting = select(FileRow).where(FileRow.status == "uploaded", live()).order_by(FileRow.number)
    return session.scalar(waiting.limit(1))


def _forget_expired(session: Session) -> tuple[Sequence[str], Sequence[str]]:
    """Ids of the files and parts whose rows are gone now."""
    now = now_s()
    files = session.scalars(select(FileRow.id).where(FileRow.expires_at <= now)).all()
    if files:
        session.execute(delete(FileRow).where(FileRow.expires_at <= now))
    expired = UploadRow.status == "pending", UploadRow.expires_at <= now
    if session.scalar(select(UploadRow.id).where(*expired).limit(1)):
        session.execute(update(UploadRow).where(*expired).values(status="expired"))
    ended = UploadPartRow.upload_id.in_(select(UploadRow.id).where(UploadRow.status != "pending"))
    parts = session.scalars(select(UploadPartRow.id).where(ended)).all()
    if parts:
        session.execute(delete(UploadPartRow).where(UploadPartRow.id.in_(parts[:10_000])))
    return files, parts[:10_000]
