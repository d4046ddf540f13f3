"""The context that jobs run in: the server's parts, and the command that starts a training."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from server.files.store import FileStore
from server.jobs.run_directory import RunDirectory
from server.settings import Settings
from server.storage.database import Database
from server.wire.errors import ServiceUnavailable, from_database
from serving import Engine, Registry, inspect_device

T = TypeVar("T")

NICE = 5
"""Niceness of trainings on a CPU, since users wait for the engine: a training gets a third of the engine's share of a
core. At 10 it would get a tenth, and a busy chat was seen to starve a job for minutes."""
DATABASE_WAIT_S = 60.0
"""How long a job keeps running while the database is away; then its process is stopped at a checkpoint."""
DATABASE_PAUSE_S = 0.25

logger = logging.getLogger(__name__)


def is_temporary(error: BaseException) -> bool:
    """Return whether the error is temporary: the database is away, full or busy."""
    return isinstance(error, Exception) and isinstance(from_database(error), ServiceUnavailable)


@dataclass(frozen=True)
class JobContext:
    """The parts of the server that jobs use, and the training command."""

    settings: Settings
    database: Database
    engine: Engine
    registry: Registry
    files: FileStore
    command: tuple[str, ...]
    """The training command; the run directory is appended."""
    on_end: Callable[[], None]
    """Called when a job's end has been stored, so that webhooks can be sent."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server stops: retries end."""

    def get_run(self, job_id: str) -> RunDirectory:
        """Return the run directory of this job."""
        return RunDirectory(self.settings.runs_dir / job_id)

    async def run_transaction(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one transaction and return its result; retry while the database is away.

        It may run twice if the answer to a commit was lost, so its changes must depend on the current state.
        """
        return await self.retry(lambda: self.database.run(work))

    async def retry(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `attempt`; retry while the database is away, up to `DATABASE_WAIT_S`.

        Raises:
            SQLAlchemyError: it stayed away, or the server is stopping.
        """
        deadline = time.monotonic() + DATABASE_WAIT_S
        while True:
            try:
                return await attempt()
            except SQLAlchemyError as error:
                if not is_temporary(error) or self.stopping.is_set() or time.monotonic() > deadline:
                    raise
                logger.warning("A job is waiting for the database: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATABASE_PAUSE_S):
                    await self.stopping.wait()

    def build_command(self) -> tuple[str, ...]:
        """Return the training command for this machine: on a CPU with a lower priority. May take a second."""
        if inspect_device().kind == "cpu" and shutil.which("nice"):
            return ("nice", "-n", str(NICE), *self.command)
        return self.command
