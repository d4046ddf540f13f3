"""What a running server has of the aliases in memory, so that a request costs no query. The database is the truth.

The command line may write there beside a running server, so the book is read again about once a second. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.storage.database import Database
from server.storage.tables import AliasRow
from server.wire.background import BackgroundLoop

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
        self._refreshing = BackgroundLoop(
            self.read, "The aliases can't be read now and stay as they were", pause_s=REFRESH_S
        )

    async def start(self) -> None:
        """Returns when the aliases have been read; from then on changes made elsewhere are noticed, too."""
        await self.read()
        self._refreshing.start()

    async def stop(self) -> None:
        """Stops looking for changes."""
        await self._refreshing.stop()

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

    def _is_reserved(self, name: str) -> bool:
        if name in self._reserved and name not in self._warned:
            logger.warning("The alias %s isn't served: a base model has that name now. Delete the alias.", name)
            self._warned.add(name)
        return name in self._reserved


def _live(session: Session) -> list[tuple[str, str]]:
    rows = session.execute(select(AliasRow.name, AliasRow.model).where(AliasRow.model.is_not(None)))
    return [(row.name, str(row.model)) for row in rows]
