"""Owns the connection to the database and its schema's version. Knows nothing of what the rows mean."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool

T = TypeVar("T")

_READS = ("SELECT", "PRAGMA", "SAVEPOINT", "RELEASE", "ROLLBACK")
"""How statements begin that take no turn."""
TURN_TIMEOUT_S = 30
"""After so long a writer goes without its turn, and waits as SQLite does: one that hangs must not stop all writing."""
CONNECT_TIMEOUT_S = 5
POOL_TIMEOUT_S = 10
LOCK_PATIENCE_S = 5.0
"""So long PostgreSQL may take to notice that the server which held the lock is gone."""
SERVER_LOCK = 0x74756E656C6F6F70
"""The number of PostgreSQL's advisory lock that a server holds: "tuneloop" in ASCII."""


class DatabaseError(Exception):
    """The database cannot be opened. The message names the URL (without its password) and the remedy."""


class Database:
    """A SQLAlchemy engine with its sessions; every call from a coroutine goes through `run`, in a thread."""

    def __init__(self, url: str) -> None:
        try:
            self._engine = _create_engine(url)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise DatabaseError(
                f"The database URL {url.split('@')[-1]!r} is not usable: {error}. Use sqlite:///PATH or "
                "postgresql+psycopg://USER:PASSWORD@HOST/NAME (and install tuneloop[postgres])."
            ) from error
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)

    def migrate(self) -> None:
        """Bring the schema to this version's, wholly or not at all.

        Raises:
            DatabaseError: the database cannot be reached or written.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        try:
            with self._engine.begin() as connection:
                if self._engine.dialect.name == "sqlite":
                    # Else the driver begins with the first row that is written, and tables made before would stay made
                    # when the rest is cut off.
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except OperationalError as error:
            shown = self._engine.url.render_as_string(hide_password=True)
            raise DatabaseError(
                f"The database {shown} cannot be opened: {error.orig}. Check that it runs "
                "and that its folder can be written."
            ) from error

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on an exception."""
        with self._sessions.begin() as session:
            yield session

    async def run(self, work: Callable[[Session], T]) -> T:
        """The result of `work(session)`, done in one transaction in a worker thread."""

        def transaction() -> T:
            with self.session() as session:
                return work(session)

        return await run_in_threadpool(transaction)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the database for one server: two would run each other's jobs. SQLite's file lies in a data directory,
        which is held already. One that was just stopped or killed may hold it for some moments yet.

        Raises:
            DatabaseError: another server holds it.
        """
        if self._engine.dialect.name != "postgresql":
            yield
            return
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            patient_until_s = time.monotonic() + LOCK_PATIENCE_S
            while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": SERVER_LOCK}):
                if time.monotonic() < patient_until_s:
                    time.sleep(0.1)
                    continue
                shown = self._engine.url.render_as_string(hide_password=True)
                raise DatabaseError(
                    f"The database {shown} is in use by another running tuneloop. Stop that one, or give this one a "
                    "database of its own."
                )
            try:
                yield
            finally:
                connection.invalidate()  # the lock goes with the connection, which may be broken by now

    def close(self) -> None:
        """Return every connection."""
        self._engine.dispose()


def _create_engine(url: str) -> Engine:
    # hide_parameters: errors are logged, and what is bound may be a secret or somebody's text.
    if not url.startswith("sqlite"):
        # A request that cannot have a connection soon is better told so than kept waiting; see errors.from_database.
        connect = {"connect_timeout": CONNECT_TIMEOUT_S} if url.startswith("postgresql+psycopg") else {}
        return create_engine(
            url, pool_pre_ping=True, pool_timeout=POOL_TIMEOUT_S, connect_args=connect, hide_parameters=True
        )
    # Python's driver begins a transaction with its first write, never with a read: so a write waits its turn (up to
    # `timeout`), where one that had read an older state before would fail at once as "database is locked".
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _tune(connection: Any, _record: Any) -> None:
        # WAL lets readers go on while one writes; FULL makes an acknowledged vote survive a power cut too.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    _take_turns(engine)
    return engine


def _take_turns(engine: Engine) -> None:
    """Lets this process's writers go one after another.

    SQLite's own waiting is a sleep and another try, up to 0.1 s each: under many writers some starve until they fail.
    """
    turn = threading.Lock()

    @event.listens_for(engine, "before_cursor_execute")
    def _begin(connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if not statement.lstrip().upper().startswith(_READS) and not connection.info.get("turn"):
            connection.info["turn"] = turn.acquire(timeout=TURN_TIMEOUT_S)

    @event.listens_for(engine, "checkin")
    def _end(_connection: Any, record: Any) -> None:
        if record.info.pop("turn", False):
            turn.release()
