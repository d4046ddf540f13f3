"""Stored files: their contents, in one folder under their ids, and their rows.

A content is written before its row and removed after it, so that a row always has one. A content without a row is
never removed but moved aside: the database may be the wrong one. The table is also the queue of files to check, so that
nothing is lost with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, event, or_, select, update
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from server.files.check import COMMAND, FileCheckError, check_file
from server.files.contents import Contents, IncomingFile, copy, remove
from server.files.rules import FINE_TUNE
from server.storage.database import Database
from server.storage.tables import FileRow, UploadPartRow, UploadRow, new_id, now_s
from server.wire.background import BackgroundLoop
from server.wire.errors import NotFound

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 30.0
"""Seconds between two sweeps for expired files. They are hidden at once; the sweep frees the disk."""
AFTER_FAULT_S = 1.0
MAX_CHECKS = 2
"""Files that are checked at the same time, each in a process."""
_BATCH_ROWS = 10_000
"""Most rows of one sweep: as many as a statement can list."""
_DELETED_VALUES = {"status": "deleted", "expires_at": 0, "filename": "", "sha256": "", "status_details": None}
"""The values of a deleted file's row; see `FileRow.status`."""


def is_live() -> ColumnElement[bool]:
    """Return the condition for files that haven't expired and weren't deleted."""
    return or_(FileRow.expires_at.is_(None), FileRow.expires_at > now_s())


def is_unchecked() -> ColumnElement[bool]:
    """Return the condition for files that are being checked, or will be: only those stay `uploaded`."""
    return and_(FileRow.status == "uploaded", is_live())


def get_file(session: Session, file_id: str) -> FileRow:
    """Return the file with that id.

    Raises:
        NotFound: it doesn't exist, or has expired.
    """
    row = session.scalar(select(FileRow).where(FileRow.id == file_id, is_live()))
    if row is None:
        raise file_not_found_error(file_id)
    return row


def file_not_found_error(file_id: str) -> NotFound:
    """Return the error for a file that doesn't exist."""
    return NotFound(
        f"No such File object: {file_id[:200]}. GET /v1/files lists them.", code="file_not_found", param="id"
    )


def file_object(row: FileRow) -> dict[str, Any]:
    """Return the file as the API's object. https://platform.openai.com/docs/api-reference/files/object"""
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
    """The stored files, and the background work on them: checks and expiry."""

    def __init__(self, files_dir: Path, database: Database, *, check_command: Sequence[str] = COMMAND) -> None:
        """files_dir: created if missing, readable by this user only. check_command: the process that checks a file."""
        self.contents = Contents(files_dir)
        self._database, self._check_command = database, tuple(check_command)
        self._loops = [
            BackgroundLoop(
                work,
                "Can't check files or remove expired ones now",
                pause_s=SWEEP_EVERY_S,
                failure_pause_s=AFTER_FAULT_S,
            )
            for work in (self._sweep, *[self._check_waiting] * MAX_CHECKS)
        ]
        self._checking: set[str] = set()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def path(self, file_id: str) -> Path:
        """Return the path of this file's content. The id must come from a row, never from a client."""
        return self.contents.path(file_id)

    def lock(self, upload_id: str) -> asyncio.Lock:
        """Return the lock of an upload. It only avoids duplicate work; the database guarantees that it is done once."""
        return self._locks.setdefault(upload_id, asyncio.Lock())

    def prepare(self, source: Path) -> IncomingFile:
        """Return a synced copy of `source` to be published, a context manager. Leaves nothing slow for the
        transaction."""
        with contextlib.ExitStack() as stack:
            incoming = stack.enter_context(self.contents.create_incoming())
            copy(source, incoming)
            incoming.sync()
            stack.pop_all()
            return incoming

    def publish(
        self,
        session: Session,
        incoming: IncomingFile,
        *,
        filename: str,
        purpose: str,
        created_by: str | None,
        expires_after_s: int | None = None,
    ) -> FileRow:
        """Store `incoming` as a new file and return its row. The content is removed if the transaction is rolled back.

        Can be called once per `incoming`. A file for fine-tuning is `uploaded`, and is checked after the commit and a
        call of `wake`; any other is `processed`.
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
        incoming.publish(target)  # before the row, so that the database isn't locked while waiting for the disk
        remove_if_rolled_back(session, target)
        session.add(row)
        session.flush()
        return row

    async def delete(self, file_id: str) -> None:
        """Delete the file and its content. Jobs keep their own copies.

        Raises:
            NotFound: it doesn't exist, or has expired.
        """

        def work(session: Session) -> None:
            result: Any = session.execute(
                update(FileRow).where(FileRow.id == file_id, is_live()).values(_DELETED_VALUES)
            )
            if not result.rowcount:
                raise file_not_found_error(file_id)

        await self._database.run(work)
        await run_in_threadpool(remove, [self.path(file_id)])

    def wake(self) -> None:
        """Start the next round of checks and sweeps now."""
        for loop in self._loops:
            loop.wake()

    async def start(self) -> None:
        """Clean up, continue interrupted checks, and start sweeping."""
        orphaned = await run_in_threadpool(self.contents.clean_up, *await self._database.run(_read_known_ids))
        if orphaned:
            log.warning(
                "%d files or parts on disk are missing from this database. They are kept in %s, for a database "
                "that has them",
                orphaned,
                self.contents.orphaned,
            )
        for loop in self._loops:
            loop.start()

    async def stop(self) -> None:
        """Stop the background work and return when it has ended."""
        await asyncio.gather(*(loop.stop() for loop in self._loops))

    async def _check_waiting(self) -> None:
        while row := await self._database.run(partial(_find_next_unchecked, busy=tuple(self._checking))):
            if row.id in self._checking:  # another task has taken it meanwhile
                continue
            self._checking.add(row.id)
            try:
                await self._check(row)
            finally:
                self._checking.discard(row.id)

    async def _check(self, row: FileRow) -> None:
        try:
            result = await check_file(self.path(row.id), command=self._check_command)
            details = f"{result.found} error(s): {result.describe()}" if result.found else None
        except (FileCheckError, OSError) as error:
            log.warning("%s could not be checked: %s", row.id, error)
            details = f"The file couldn't be checked. {error} Then upload it again."
        update_row = (
            update(FileRow)
            .where(FileRow.id == row.id, FileRow.status == "uploaded")
            .values(status="processed" if details is None else "error", status_details=details)
        )
        await self._database.run(lambda session: session.execute(update_row))

    async def _sweep(self) -> None:
        """Remove expired files, and the parts of uploads that have ended."""
        file_ids, part_ids = await self._database.run(_expire_rows)
        await run_in_threadpool(remove, [self.path(file_id) for file_id in file_ids])
        await run_in_threadpool(remove, [self.contents.part_path(part_id) for part_id in part_ids])
        if part_ids:  # their rows go last: if the server dies here, the next start still knows them
            delete_parts = delete(UploadPartRow).where(UploadPartRow.id.in_(part_ids))
            await self._database.run(lambda session: session.execute(delete_parts))


def remove_if_rolled_back(session: Session, content: Path) -> None:
    """Remove the content if the session's transaction is rolled back.

    Not once a commit was sent: it may have succeeded although its answer was lost. The content then stays, and without
    a row it is found orphaned at the next start.
    """
    commits: list[Session] = []
    event.listen(session, "before_commit", commits.append, once=True)
    event.listen(session, "after_rollback", lambda _: None if commits else content.unlink(missing_ok=True), once=True)


def _read_known_ids(session: Session) -> tuple[set[str], set[str], set[str]]:
    """Return the ids of all files, of all parts, and of the deleted files."""
    files: set[str] = set()
    deleted: set[str] = set()
    for file_id, status in session.execute(select(FileRow.id, FileRow.status)):
        (deleted if status == "deleted" else files).add(file_id)
    return files, set(session.scalars(select(UploadPartRow.id))), deleted


def _find_next_unchecked(session: Session, busy: Collection[str]) -> FileRow | None:
    waiting = select(FileRow).where(is_unchecked(), FileRow.id.not_in(busy))
    return session.scalar(waiting.order_by(FileRow.number).limit(1))


def _expire_rows(session: Session) -> tuple[Sequence[str], Sequence[str]]:
    """Mark what has expired; return the ids of those files, and of the parts of ended uploads."""
    now = now_s()
    expired = FileRow.expires_at <= now, FileRow.status != "deleted"
    files = session.scalars(select(FileRow.id).where(*expired).limit(_BATCH_ROWS)).all()
    if files:
        session.execute(update(FileRow).where(FileRow.id.in_(files)).values(_DELETED_VALUES))
    overdue = UploadRow.status == "pending", UploadRow.expires_at <= now
    if session.scalar(select(UploadRow.id).where(*overdue).limit(1)):
        session.execute(update(UploadRow).where(*overdue).values(status="expired"))
    ended = UploadPartRow.upload_id.in_(select(UploadRow.id).where(UploadRow.status != "pending"))
    return files, session.scalars(select(UploadPartRow.id).where(ended).limit(_BATCH_ROWS)).all()
