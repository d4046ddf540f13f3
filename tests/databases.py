"""A throw-away PostgreSQL for the tests, and the choice of database for a gateway.

A test (or with `pytestmark` a module) that is marked `both_databases` runs twice: on SQLite and on PostgreSQL.
What a gateway is started on has its tables already, as migrations take a third of a start: SQLite's file is copied, and
PostgreSQL's database goes from test to test, emptied between them, as making one takes four times as long as a gateway.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from server.storage.database import Database
from server.storage.tables import Base

START_TIMEOUT_S = 60
USER = "postgres"
"""Who runs the server where we are root, which PostgreSQL refuses; its superuser's name everywhere."""


def postgresql_bin() -> Path | None:
    """The folder with `initdb` and `postgres`, the newest that is installed; None where there is none."""
    on_path = shutil.which("postgres")
    if on_path and shutil.which("initdb", path=str(Path(on_path).parent)):
        return Path(on_path).parent
    # Debian keeps the server's programs off PATH.
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(versions, key=lambda path: float(path.parent.name), default=None)


class PostgreSQL:
    """A cluster of its own in a temporary folder, reached by its Unix socket only."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="tuneloop-postgresql-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._idle: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self._folder, USER)
        # Nobody needs these rows after a power cut: no waiting for the disk.
        flags = ("--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", f"--username={USER}")
        subprocess.run(
            self._as_user("initdb", f"--pgdata={self._folder / 'cluster'}", *flags), check=True, capture_output=True
        )

    def start(self) -> None:
        """Returns when it answers."""
        options = ("listen_addresses=", f"unix_socket_directories={self._folder}", "fsync=off", "max_connections=200")
        command = self._as_user("postgres", "-D", str(self._folder / "cluster"), *(f"--{option}" for option in options))
        log = self._folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends every connection; what was committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # PostgreSQL's "fast" shutdown
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        """Nothing of it is left."""
        self.stop()
        shutil.rmtree(self._folder)

    def create_database(self) -> str:
        """The SQLAlchemy URL of a new database."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{USER}@/{name}?host={self._folder}"

    def lend(self) -> str:
        """The URL of a database with its tables and no row in them, as new: to be given back."""
        if self._idle:
            return self._idle.pop()
        url = self.create_database()
        migrate(url)
        return url

    def take_back(self, url: str) -> None:
        """Empties a lent database, whoever is still connected to it, and lets its numbers begin anew."""
        name = _name_in(url)
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        emptied = "".join(f'DELETE FROM "{table.name}";' for table in reversed(Base.metadata.sorted_tables))
        self.execute(f"{emptied} SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S'", name)
        self._idle.append(url)

    def drop_database(self, url: str) -> None:
        """Drops the database of this URL, whoever is still connected to it."""
        self.execute(f"DROP DATABASE {_name_in(url)} WITH (FORCE)")

    def cut_connections(self) -> None:
        """Ends every connection, as a restart or a firewall does."""
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'")

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Runs a statement, or some with semicolons between them, as the superuser."""
        with self._connect(database) as connection:
            connection.execute(statement.encode())

    def _connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(host=str(self._folder), user=USER, dbname=database, autocommit=True)

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _as_user(self, program: str, *arguments: str) -> Sequence[str]:
        command = [str(self._programs / program), *arguments]
        if shutil.which("setpriv") is None:
            return command
        user = (f"--reuid={USER}", f"--regid={USER}", "--clear-groups") if os.geteuid() == 0 else ()
        # It must not outlive a test run that is killed.
        return ["setpriv", "--pdeathsig=INT", *user, *command]


def _name_in(url: str) -> str:
    return url.split("/")[3].split("?")[0]


_first: dict[str, Engine] = {}
"""Of each kind of database, the engine that made the tables."""


def migrate(url: str) -> None:
    """Make the tables."""
    database = Database(url)
    database.migrate()
    database.close()
    _first.setdefault(database._engine.dialect.name, database._engine)


def compiled_once(database: Database) -> Database:
    """Has the database's statements compiled once for all of its kind, as in a server that runs for long.

    To compile them anew takes a gateway as long as all the rest of its start.
    """
    engine = database._engine
    if first := _first.get(engine.dialect.name):
        engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache
    return database


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with its tables, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "tuneloop.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL that runs as long as the tests do."""
    programs = postgresql_bin()
    assert programs, "PostgreSQL is missing, and this test was not left out"
    server = PostgreSQL(programs)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """A fresh database's URL; None means SQLite in the data directory. `both_databases` has both, one by one.

    It is empty; where the test starts a gateway or works on jobs, its tables are there.
    """
    if getattr(request, "param", "sqlite") == "sqlite":
        yield None
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    if not {"start_gateway", "place"}.isdisjoint(request.fixturenames):
        url = server.lend()
        yield url
        server.take_back(url)
    else:
        url = server.create_database()
        yield url
        server.drop_database(url)
