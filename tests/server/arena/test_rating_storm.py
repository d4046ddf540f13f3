"""Raters who vote at once on a server that is killed: every acknowledged vote is there, none twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.rating_storm import blow

pytestmark = pytest.mark.both_databases


def test_killed_amid_votes_loses_none_and_doubles_none(tmp_path: Path, database_url: str | None) -> None:
    storm = asyncio.run(blow(tmp_path / "data", raters=8, votes=80, kills=1, database_url=database_url))
    assert storm.counted["kills"] == 1
    assert storm.lost() == set()
    assert storm.doubled() == []
    assert storm.unknown() == 0
    assert len(storm.stored) == 80
    assert storm.campaign["votes"]["done"] == 80
