"""What a running server has of the aliases in memory, so that a request costs no query. The database is the truth.

The command line may write there beside a running server, so the book is read again about once a second. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from server.storage.database import Database
from server.storage.tables import AliasRow

REFRESH_S = 1.0
"""What the command line changes counts after about this many seconds."""

logger = logging.getLogger(__name__)


class AliasBook:
    """Alias → model, as the database has it. Its coroutines belong to the server's event loop."""

    def __init__(self, database: Database, *, reserved: Collection[str] = ()) -> None:
        """reserved: names that mean something else on this server; an alias of such a name isn't served."""
        self.current: dict[str, str] = {}
        """The same object for good, changed in place: a registry reads it at each request."""
        self._database = database
        self._reserved = frozenset(reserved)
        self._warned: set[str] = set()
        self._reading = asyncio.Lock()
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the aliases have been read; from then on changes made elsewhere are noticed, too."""
        await self.read()
        self._task = asyncio.create_task(self._keep_up())

    async def stop(self) -> None:
        """Stops looking for changes."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def read(self) -> None:
        """Brings the book up to date."""
        # Under the lock, or a reading that began before a commit would undo what the commit has just put in here.
        async with self._reading:
            found = {name: model for name, model in await self._database.run(_live) if not self._is_reserved(name)}
            for name in self.current.keys() - found.keys():
                del self.current[name]
            self.current.update(found)

    @asynccontextmanager
    async def changing(self, name: str) -> AsyncIterator[None]:
        """Whoever else wants to change this alias waits until the context is left."""
        lock = self._changing.get(name) or self._changing.setdefault(name, asyncio.Lock())
        async with lock:
            yield

    async def commit(self, change: Callable[[Session], AliasRow]) -> AliasRow:
        """The row after this change, done in one transaction. Requests that begin after the return see the change."""
        async with self._reading:
            row = await self._database.run(change)
            if row.model is None:
                self.current.pop(row.name, None)
            else:
                self.current[row.name] = row.model
        return row

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.read()
            except SQLAlchemyError as error:
                logger.warning("The aliases can't be read now; they stay as they were: %s", error)
            except Exception:  # the outermost catcher of this task: without it nobody would look any more
                logger.exception("Reading the aliases met something unforeseen; they stay as they were")

    def _is_reserved(self, name: str) -> bool:
        if name in self._reserved and name not in self._warned:
            logger.warning("The alias %s isn't served: a base model has that name now. Delete the alias.", name)
            self._warned.add(name)
        return name in self._reserved


def _live(session: Session) -> list[tuple[str, str]]:
    rows = session.execute(select(AliasRow.name, AliasRow.model).where(AliasRow.model.is_not(None)))
    return [(row.name, str(row.model)) for row in rows]
