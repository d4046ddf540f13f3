"""What whoever works on jobs is given: the running parts of the server, and how a training is started."""

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
"""How much a training on a CPU stands back behind the engine, which someone is waiting for: it gets a third of the
engine's share of a core. At 10 it gets a tenth, and a busy chat was seen to starve a job for minutes."""
DATABASE_WAIT_S = 60.0
"""How long a running job goes on while its database is away; after that its process makes way."""
DATABASE_PAUSE_S = 0.25

logger = logging.getLogger(__name__)


def is_passing(error: BaseException) -> bool:
    """Whether the database is away, full or busy, so that the same may be done later."""
    return isinstance(error, Exception) and isinstance(from_database(error), ServiceUnavailable)


@dataclass(frozen=True)
class Workshop:
    """The parts, and the command."""

    settings: Settings
    database: Database
    engine: Engine
    registry: Registry
    files: FileStore
    command: tuple[str, ...]
    """What is started with the run directory as its last argument."""
    on_end: Callable[[], None]
    """Called when a job has ended and that is written: whoever tells the outside has something to tell."""
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server stops: nothing is waited for any more."""

    def run_of(self, job_id: str) -> RunDirectory:
        """The run directory of this job."""
        return RunDirectory(self.settings.runs_dir / job_id)

    async def transaction(self, work: Callable[[Session], T]) -> T:
        """The result of `work`, done in one transaction; done again for a while where the database is away.

        It may be done twice, when the answer to a commit was lost: so what it changes must depend on the state.
        """
        return await self.patiently(lambda: self.database.run(work))

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of `attempt`, which is made again while the database is away, up to `DATABASE_WAIT_S`.

        Raises:
            SQLAlchemyError: it stayed away, or the server stops.
        """
        deadline = time.monotonic() + DATABASE_WAIT_S
        while True:
            try:
                return await attempt()
            except SQLAlchemyError as error:
                if not is_passing(error) or self.leaving.is_set() or time.monotonic() > deadline:
                    raise
                logger.warning("A job waits for the database: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATABASE_PAUSE_S):
                    await self.leaving.wait()

    def command_here(self) -> tuple[str, ...]:
        """The command as this machine is to run it: on a CPU with a lower priority. May take a second."""
        if inspect_device().kind == "cpu" and shutil.which("nice"):
            return ("nice", "-n", str(NICE), *self.command)
        return self.command
