"""Files on disk and their rows: one folder, each content under its file's id. Knows no HTTP but the errors it raises.

A content is there before its row and goes after it, so that a row always has one. A content that no row names is
never removed but kept aside: the database may be the wrong one. The table is the list of what is to be checked:
nothing is only in memory.
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
from server.files.contents import Contents, Incoming, copy, remove
from server.files.rules import FINE_TUNE
from server.storage.database import Database
from server.storage.tables import FileRow, UploadPartRow, UploadRow, new_id, now_s
from server.wire.background import BackgroundLoop
from server.wire.errors import NotFound

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 30.0
"""Seconds between two looks for what has expired. It answers as unknown at once; this frees the disk."""
AFTER_FAULT_S = 1.0
MAX_CHECKS = 2
"""Files that are checked at once; each check is a process."""
_AT_ONCE = 10_000
"""Rows that one sweep takes: a statement can name so many."""
_FORGOTTEN = {"status": "deleted", "expires_at": 0, "filename": "", "sha256": "", "status_details": None}
"""What is left of a file's row; see `FileRow.status`."""


def live() -> ColumnElement[bool]:
    """The condition of a file that hasn't expired and wasn't deleted."""
    return or_(FileRow.expires_at.is_(None), FileRow.expires_at > now_s())


def unchecked() -> ColumnElement[bool]:
    """The condition of a file that is being checked, or will be: nothing else keeps a file `uploaded`."""
    return and_(FileRow.status == "uploaded", live())


def get_file(session: Session, file_id: str) -> FileRow:
    """The file of that id.

    Raises:
        NotFound: there is none, or it has expired.
    """
    row = session.scalar(select(FileRow).where(FileRow.id == file_id, live()))
    if row is None:
        raise missing_file(file_id)
    return row


def missing_file(file_id: str) -> NotFound:
    """The refusal of a file that there isn't."""
    return NotFound(
        f"No such File object: {file_id[:200]}. GET /v1/files lists them.", code="file_not_found", param="id"
    )


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
        self._loops = [
            BackgroundLoop(
                work, "Files can't be looked after now", pause_s=SWEEP_EVERY_S, failure_pause_s=AFTER_FAULT_S
            )
            for work in (self._sweep, *[self._check_waiting] * MAX_CHECKS)
        ]
        self._checking: set[str] = set()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def path(self, file_id: str) -> Path:
        """Where the content of this file lies. The id is one of a row, never a client's word."""
        return self.contents.path(file_id)

    def lock(self, upload_id: str) -> asyncio.Lock:
        """Spares double work on one upload; that it is done once is the database's business."""
        return self._locks.setdefault(upload_id, asyncio.Lock())

    def prepare(self, source: Path) -> Incoming:
        """A durable copy of `source`, to be published: nothing slow is left for the transaction. Used as a context."""
        with contextlib.ExitStack() as stack:
            incoming = stack.enter_context(self.contents.incoming())
            copy(source, incoming)
            incoming.settle()
            stack.pop_all()
            return incoming

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
        """The new file with this content, which is removed again if the transaction is rolled back. Once only.

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
        remove_if_rolled_back(session, target)
        session.add(row)
        session.flush()
        return row

    async def delete(self, file_id: str) -> None:
        """Deletes the file and its content. What a job was given of it stays with the job.

        Raises:
            NotFound: there is none, or it has expired.
        """

        def work(session: Session) -> None:
            result: Any = session.execute(update(FileRow).where(FileRow.id == file_id, live()).values(_FORGOTTEN))
            if not result.rowcount:
                raise missing_file(file_id)

        await self._database.run(work)
        await run_in_threadpool(remove, [self.path(file_id)])

    def wake(self) -> None:
        """Says that there is a file to check, or something to remove."""
        for loop in self._loops:
            loop.wake()

    async def start(self) -> None:
        """Goes on with checks that were under way, and looks for what has expired from now on."""
        orphaned = await run_in_threadpool(self.contents.tidy, *await self._database.run(_known))
        if orphaned:
            log.warning(
                "%d contents of files or parts are in no row of this database. They are kept in %s and come back with "
                "the database that knows them",
                orphaned,
                self.contents.orphaned,
            )
        for loop in self._loops:
            loop.start()

    async def stop(self) -> None:
        """Returns when nothing is under way any more."""
        await asyncio.gather(*(loop.stop() for loop in self._loops))

    async def _check_waiting(self) -> None:
        while row := await self._database.run(partial(_next_unchecked, busy=tuple(self._checking))):
            if row.id in self._checking:  # somebody else has taken it up meanwhile
                continue
            self._checking.add(row.id)
            try:
                await self._check(row)
            finally:
                self._checking.discard(row.id)

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
        """Frees what has expired and what is left of uploads that have ended."""
        file_ids, part_ids = await self._database.run(_expire)
        await run_in_threadpool(remove, [self.path(file_id) for file_id in file_ids])
        await run_in_threadpool(remove, [self.contents.part_path(part_id) for part_id in part_ids])
        if part_ids:  # their rows go last: until then a server that dies here knows at its next start what they were
            forgotten = delete(UploadPartRow).where(UploadPartRow.id.in_(part_ids))
            await self._database.run(lambda session: session.execute(forgotten))


def remove_if_rolled_back(session: Session, content: Path) -> None:
    """Has the content removed if the session's transaction is rolled back.

    Not after the database was asked to commit: an answer that is lost is no refusal. The content then stays, and where
    no row came of it, the next start finds it to be nobody's.
    """
    asked: list[Session] = []
    event.listen(session, "before_commit", asked.append, once=True)
    event.listen(session, "after_rollback", lambda _: None if asked else content.unlink(missing_ok=True), once=True)


def _known(session: Session) -> tuple[set[str], set[str], set[str]]:
    """The ids of all files, of all parts, and of the files that were deleted."""
    files: set[str] = set()
    deleted: set[str] = set()
    for file_id, status in session.execute(select(FileRow.id, FileRow.status)):
        (deleted if status == "deleted" else files).add(file_id)
    return files, set(session.scalars(select(UploadPartRow.id))), deleted


def _next_unchecked(session: Session, busy: Collection[str]) -> FileRow | None:
    waiting = select(FileRow).where(unchecked(), FileRow.id.not_in(busy))
    return session.scalar(waiting.order_by(FileRow.number).limit(1))


def _expire(session: Session) -> tuple[Sequence[str], Sequence[str]]:
    """Ids of the files that have expired just now, and of parts that are of no use any more."""
    now = now_s()
    expired = FileRow.expires_at <= now, FileRow.status != "deleted"
    files = session.scalars(select(FileRow.id).where(*expired).limit(_AT_ONCE)).all()
    if files:
        session.execute(update(FileRow).where(FileRow.id.in_(files)).values(_FORGOTTEN))
    late = UploadRow.status == "pending", UploadRow.expires_at <= now
    if session.scalar(select(UploadRow.id).where(*late).limit(1)):
        session.execute(update(UploadRow).where(*late).values(status="expired"))
    ended = UploadPartRow.upload_id.in_(select(UploadRow.id).where(UploadRow.status != "pending"))
    return files, session.scalars(select(UploadPartRow.id).where(ended).limit(_AT_ONCE)).all()
