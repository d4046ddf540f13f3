"""The database: both kinds, both ways of the migrations, many writers, lost connections, and none at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect, select, update

import server
from server.storage.database import Database, DatabaseError
from server.storage.tables import APIKeyRow, Base
from tests.databases import PostgreSQL, postgresql_bin
from tests.server.conftest import Gateway, StartGateway

LISTED = "/v1/ratings"


@pytest.fixture
def url(database_url: str | None, tmp_path: Path) -> str:
    """An empty database."""
    return database_url or f"sqlite:///{tmp_path / 'empty.db'}"


@pytest.mark.both_databases
def test_migrations_go_up_down_and_up_again_and_make_what_the_tables_say(url: str) -> None:
    engine = create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(server.__file__).parent / "storage" / "migrations"))
    for go, target in ((command.upgrade, "head"), (command.downgrade, "base"), (command.upgrade, "head")):
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            go(config, target)
        made = set(inspect(engine).get_table_names()) - {"alembic_version"}
        assert made == (set(Base.metadata.tables) if target == "head" else set())
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.check(config)  # raises where a table or a column is not as server/tables.py has it
    engine.dispose()


@pytest.mark.both_databases
def test_many_writers_at_once_lose_nothing_and_are_never_locked_out(url: str) -> None:
    database = Database(url)
    database.migrate()

    def write(writer: int) -> None:
        for number in range(40):
            with database.session() as session:
                # Reading first and writing then is what makes a SQLite that began with the reading fail.
                session.scalars(select(APIKeyRow)).first()
                name = f"{writer}-{number}"
                session.add(APIKeyRow(id=name, name="0", prefix="", sha256=name, created_at=0, project="p"))
                session.flush()
                session.execute(
                    update(APIKeyRow).where(APIKeyRow.id == "0-0").values(created_at=APIKeyRow.created_at + 1)
                )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    with database.session() as session:
        rows = session.scalars(select(APIKeyRow)).all()
    assert len(rows) == 320
    database.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_lost_connections_are_made_anew_without_an_error(gateway: Gateway, postgresql: PostgreSQL) -> None:
    assert gateway.http.get(LISTED).status_code == 200
    postgresql.cut_connections()
    assert [gateway.http.get(LISTED).status_code for _ in range(5)] == [200] * 5


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL that this test may stop."""
    programs = postgresql_bin()
    assert programs
    server = PostgreSQL(programs)
    server.start()
    yield server
    server.remove()


def test_database_that_is_down_is_503_and_comes_back(start_gateway: StartGateway, own_postgresql: PostgreSQL) -> None:
    gateway = start_gateway(database_url=own_postgresql.create_database())
    assert gateway.http.get(LISTED).status_code == 200
    own_postgresql.stop()
    answer = gateway.http.get(LISTED)
    assert (answer.status_code, gateway.error(answer)["code"]) == (503, "database_unavailable")
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert answer.headers["x-request-id"]
    assert gateway.http.get("/healthz").status_code == 200
    assert "tuneloop_database_up 0.0" in gateway.http.get("/metrics").text
    own_postgresql.start()
    assert gateway.http.get(LISTED).status_code == 200


def test_database_that_is_down_lets_nobody_in(start_gateway: StartGateway, own_postgresql: PostgreSQL) -> None:
    gateway = start_gateway(database_url=own_postgresql.create_database())
    own_postgresql.stop()
    for _ in range(3):  # it has never read the keys, so it cannot know that there are none
        assert gateway.http.get("/v1/models").status_code == 503
        time.sleep(0.1)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_second_server_on_a_database_is_refused_until_the_first_is_gone(url: str) -> None:
    first, second = Database(url), Database(url)
    with (
        first.lock_for_server(),
        pytest.raises(DatabaseError, match="in use by another running tuneloop"),
        second.lock_for_server(),
    ):
        pass
    with second.lock_for_server():
        pass
    first.close()
    second.close()
