"""Votes from before they could be superseded keep their meaning: migration 0004, there and back, on both databases."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, text

import server
from server.arena.leaderboard.counted_votes import read_counted_ratings
from server.arena.ratings.reading import RatingFilter, list_ratings
from server.storage.database import Database

INSERT_COMPARISON = """INSERT INTO comparisons (id, created_at, created_by, blind, messages, sampling, "left", "right")
    VALUES (:id, 5, NULL, :blind, :messages, '{}', :left, :right)"""
INSERT_RATING = """INSERT INTO ratings (id, comparison_id, created_at, rater, verdict, dimensions, unsafe, comment)
    VALUES (:id, :comparison, 7, :rater, 'left', '{"fluency": 4}', NULL, 'gut')"""


def migrate(engine: Engine, go: Any, target: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(server.__file__).parent / "storage" / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        go(config, target)


def side(model: str, finish_reason: str = "stop") -> str:
    return json.dumps({"model": model, "content": f"by {model}", "finish_reason": finish_reason})


KILLED = """
import os, signal, sys
import server.storage.migrations.rating_facts_0004
from server.storage.database import Database
server.storage.migrations.rating_facts_0004.compute_facts = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Database(sys.argv[1]).migrate()
"""
"""A migration that is killed when the new table is there and its first vote is to be filled."""


@pytest.fixture
def url(database_url: str | None, tmp_path: Path) -> str:
    return database_url or f"sqlite:///{tmp_path / 'old.db'}"


def make_old(url: str) -> Engine:
    """Three votes as version 0003 has them: one counts, one is on an answer cut off, one isn't blind."""
    engine = create_engine(url)
    migrate(engine, command.upgrade, "0003")
    messages = json.dumps([{"role": "user", "content": "Hi"}])
    with engine.begin() as connection:
        for number, (blind, reason) in enumerate(((True, "stop"), (True, "length"), (False, "stop"))):
            sides = {"left": side("a"), "right": side("b", reason)}
            row = {"id": f"cmp_{number}", "blind": blind, "messages": messages, **sides}
            connection.execute(text(INSERT_COMPARISON), row)
            rating = {"id": f"rating_{number}", "comparison": f"cmp_{number}", "rater": f"rater-{number}"}
            connection.execute(text(INSERT_RATING), rating)
    return engine


@pytest.mark.both_databases
def test_old_votes_count_as_they_did(url: str) -> None:
    engine = make_old(url)
    database = Database(url)
    database.migrate()
    with database.session() as session:
        votes = read_counted_ratings(session, RatingFilter(blind_only=True), with_style=True)
        page, _ = list_ratings(session, RatingFilter(), limit=10)
    assert (votes.left, votes.right, votes.discarded) == (["a"], ["b"], {"unfinished": 1, "not_blind": 1})
    assert votes.dimensions == [{"fluency": 4}]
    assert {rating["discarded"] for rating in page} == {None, "unfinished"}
    assert [rating["id"] for rating in page] == ["rating_2", "rating_1", "rating_0"]
    database.close()
    migrate(engine, command.downgrade, "0003")
    with engine.begin() as connection:
        kept = connection.execute(text("SELECT id, comment FROM ratings ORDER BY id")).all()
    assert [tuple(row) for row in kept] == [(f"rating_{number}", "gut") for number in range(3)]
    engine.dispose()


@pytest.mark.both_databases
def test_killed_upgrade_goes_through_at_the_next_start(url: str) -> None:
    make_old(url).dispose()
    killed = subprocess.run([sys.executable, "-c", KILLED, url], check=False)
    assert killed.returncode == -signal.SIGKILL
    database = Database(url)
    database.migrate()
    with database.session() as session:
        page, _ = list_ratings(session, RatingFilter(), limit=10)
    assert {(rating["rater"], rating["left"]["model"]) for rating in page} == {(f"rater-{n}", "a") for n in range(3)}
    database.close()
