"""The database connection and the version of its schema."""

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

_READ_STATEMENTS = ("SELECT", "PRAGMA", "SAVEPOINT", "RELEASE", "ROLLBACK")
"""First words of the statements that don't take the write lock."""
WRITE_LOCK_TIMEOUT_S = 30
"""After this long a writer goes on without the lock and waits as SQLite does: one that hangs must not block the
others."""
CONNECT_TIMEOUT_S = 5
POOL_TIMEOUT_S = 10
LOCK_PATIENCE_S = 5.0
"""How long PostgreSQL may take to notice that the server which held the lock is gone."""
SERVER_LOCK = 0x74756E656C6F6F70
"""Number of the PostgreSQL advisory lock that a server holds: "tuneloop" in ASCII."""


class DatabaseError(Exception):
    """The database cannot be opened. The message names the URL (without its password) and the remedy."""


class Database:
    """A SQLAlchemy engine with its sessions; every call from a coroutine goes through `run`, in a thread."""

    def __init__(self, url: str) -> None:
        try:
            self._engine = _create_engine(url)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise DatabaseError(
                f"The database URL {url.split('@')[-1]!r} is invalid: {error}. Use sqlite:///PATH or "
                "postgresql+psycopg://USER:PASSWORD@HOST/NAME (and install tuneloop[postgres])."
            ) from error
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)

    def migrate(self) -> None:
        """Upgrade the schema to this version, wholly or not at all.

        Raises:
            DatabaseError: the database cannot be reached or written.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        try:
            with self._engine.begin() as connection:
                if self._engine.dialect.name == "sqlite":
                    # Otherwise the driver begins the transaction at the first row written, and tables created before
                    # that would remain if the migration is interrupted.
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except OperationalError as error:
            shown = self._engine.url.render_as_string(hide_password=True)
            raise DatabaseError(
                f"Can't open the database {shown}: {error.orig}. Check that it is running and its folder is writable."
            ) from error

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on an exception."""
        with self._sessions.begin() as session:
            yield session

    async def run(self, work: Callable[[Session], T]) -> T:
        """Run `work(session)` in one transaction in a worker thread and return its result."""

        def transaction() -> T:
            with self.session() as session:
                return work(session)

        return await run_in_threadpool(transaction)

    @contextmanager
    def lock_for_server(self) -> Iterator[None]:
        """Lock the database for one server, as two would run each other's jobs. SQLite's file lies in a data directory,
        which is locked already. A server that was just stopped or killed may hold the lock for a moment longer.

        Raises:
            DatabaseError: another server holds it.
        """
        if self._engine.dialect.name != "postgresql":
            yield
            return
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            deadline_s = time.monotonic() + LOCK_PATIENCE_S
            while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": SERVER_LOCK}):
                if time.monotonic() < deadline_s:
                    time.sleep(0.1)
                    continue
                shown = self._engine.url.render_as_string(hide_password=True)
                raise DatabaseError(
                    f"The database {shown} is in use by another running tuneloop. Stop it, or use another database."
                )
            try:
                yield
            finally:
                connection.invalidate()  # the lock goes with the connection, which may be broken by now

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _create_engine(url: str) -> Engine:
    # hide_parameters: errors are logged, and a bound value may be a secret or someone's text.
    if not url.startswith("sqlite"):
        # A request that can't get a connection soon should fail rather than wait; see errors.from_database.
        connect = {"connect_timeout": CONNECT_TIMEOUT_S} if url.startswith("postgresql+psycopg") else {}
        return create_engine(
            url, pool_pre_ping=True, pool_timeout=POOL_TIMEOUT_S, connect_args=connect, hide_parameters=True
        )
    # Python's driver begins a transaction at the first write, never at a read. So a writer waits (up to `timeout`); had
    # it read an older state in the same transaction, it would fail at once as "database is locked".
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: Any, _record: Any) -> None:
        # WAL: readers go on while one writes. FULL: an acknowledged rating survives a power cut.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    _serialize_writes(engine)
    return engine


def _serialize_writes(engine: Engine) -> None:
    """Make this process's writers wait for each other on a lock.

    SQLite itself waits by sleeping up to 0.1 s and trying again: with many writers, some starve until they fail.
    """
    write_lock = threading.Lock()

    @event.listens_for(engine, "before_cursor_execute")
    def _acquire(connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if not statement.lstrip().upper().startswith(_READ_STATEMENTS) and not connection.info.get("has_write_lock"):
            connection.info["has_write_lock"] = write_lock.acquire(timeout=WRITE_LOCK_TIMEOUT_S)

    @event.listens_for(engine, "checkin")
    def _release(_connection: Any, record: Any) -> None:
        if record.info.pop("has_write_lock", False):
            write_lock.release()
