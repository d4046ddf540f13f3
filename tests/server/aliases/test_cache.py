"""The aliases in memory keep up with the database, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from server.aliases import cache, changes
from server.aliases.cache import AliasCache
from server.storage.database import Database


@pytest.mark.parametrize(
    "fault", [OperationalError("SELECT", {}, OSError("the disk is full")), RuntimeError("can't start new thread")]
)
def test_a_fault_is_told_and_the_next_look_finds_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    monkeypatch.setattr(cache, "REFRESH_S", 0.01)
    database = Database(f"sqlite:///{tmp_path / 'a.sqlite'}")
    database.migrate()
    whole = database.run
    faults = 0

    async def failing(_work: object) -> Any:
        nonlocal faults
        faults += 1
        raise fault

    async def play() -> None:
        book = AliasCache(database)
        await book.start()
        try:
            monkeypatch.setattr(database, "run", failing)
            async with asyncio.timeout(10):
                while not faults:  # noqa: ASYNC110 (what is waited for has no event)
                    await asyncio.sleep(0.01)
                with database.session() as session:
                    changes.promote(session, "support", "base", None)
                monkeypatch.setattr(database, "run", whole)
                while book.current != {"support": "base"}:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            await book.stop()

    with caplog.at_level(logging.WARNING, logger="server.aliases.cache"):
        asyncio.run(play())
    assert str(fault) in caplog.text
    database.close()
