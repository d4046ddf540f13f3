"""The migrations make just the tables that the code works with, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from server.storage.database import Database
from server.storage.tables import Base

pytestmark = pytest.mark.both_databases


def test_migrations_make_the_tables_of_the_code(database_url: str | None, tmp_path: Path) -> None:
    url = database_url or f"sqlite:///{tmp_path / 'fresh.db'}"
    database = Database(url)
    database.migrate()
    database.close()
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()
