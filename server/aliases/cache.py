"""The aliases in memory, so that a request costs no query. The database is authoritative.

The command line may change the database beside a running server, so the cache is refreshed about once a second.
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
"""Changes by the command line take effect after about this many seconds."""

logger = logging.getLogger(__name__)


class AliasCache:
    """Alias → model, as in the database. Its coroutines must run on the server's event loop."""

    def __init__(self, database: Database, *, reserved: Collection[str] = ()) -> None:
        """reserved: names that already mean something else on this server; an alias of such a name isn't served."""
        self.current: dict[str, str] = {}
        """Always the same dict, changed in place: the registry reads it at each request."""
        self._database = database
        self._reserved = frozenset(reserved)
        self._warned: set[str] = set()
        self._reading = asyncio.Lock()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._refreshing = BackgroundLoop(
            self.read, "Can't read the aliases now; keeping the last known ones", pause_s=REFRESH_S
        )

    async def start(self) -> None:
        """Read the aliases, then keep refreshing them in the background."""
        await self.read()
        self._refreshing.start(after_pause=True)

    async def stop(self) -> None:
        """Stop refreshing."""
        await self._refreshing.stop()

    async def read(self) -> None:
        """Refresh the cache from the database."""
        # With the lock: a read that began before a commit would undo what the commit has just put in here.
        async with self._reading:
            found = {
                name: model for name, model in await self._database.run(_read_aliases) if not self._is_reserved(name)
            }
            for name in self.current.keys() - found.keys():
                del self.current[name]
            self.current.update(found)

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        """Lock this alias: others who want to change it wait until the context is left."""
        name_lock = self._locks.get(name) or self._locks.setdefault(name, asyncio.Lock())
        async with name_lock:
            yield

    async def commit(self, change: Callable[[Session], AliasRow]) -> AliasRow:
        """Commit the change in one transaction and return the row. Requests that begin afterwards see the change."""
        async with self._reading:
            row = await self._database.run(change)
            if row.model is None:
                self.current.pop(row.name, None)
            else:
                self.current[row.name] = row.model
        return row

    def _is_reserved(self, name: str) -> bool:
        if name in self._reserved and name not in self._warned:
            logger.warning("The alias %s isn't served because a base model has the same name. Delete the alias.", name)
            self._warned.add(name)
        return name in self._reserved


def _read_aliases(session: Session) -> list[tuple[str, str]]:
    rows = session.execute(select(AliasRow.name, AliasRow.model).where(AliasRow.model.is_not(None)))
    return [(row.name, str(row.model)) for row in rows]
