"""What goes wrong around a job, in the database or the engine, costs time and never the training."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from server.jobs import states
from server.jobs.run import context, finish
from serving import AdapterError, EngineUnavailableError
from tests.databases import PostgreSQL
from tests.server.fake_engine import FakeAnswer
from tests.server.jobs.conftest import JobPlace


@contextmanager
def failing_writes(words: str, times: int) -> Iterator[list[str]]:
    """The server's next `times` writes with these words fail as when the database is away; gives those that did."""
    failed: list[str] = []

    def fail(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        is_servers = threading.current_thread() is not threading.main_thread()
        if is_servers and not sql.startswith("SELECT") and words in sql and len(failed) < times:
            failed.append(sql)
            raise OperationalError(sql, None, Exception("the disk is full"))

    event.listen(Engine, "before_cursor_execute", fail)
    try:
        yield failed
    finally:
        event.remove(Engine, "before_cursor_execute", fail)


@pytest.mark.parametrize("words", ["events_offset=", "INSERT INTO fine_tuning_events", "INSERT INTO files"])
def test_a_database_that_is_away_for_a_moment_fails_no_job_and_stops_no_training(place: JobPlace, words: str) -> None:
    place.serve()
    with failing_writes(words, 3) as failed:
        job_id = place.create(steps=30, step_s=0.02)
        assert place.wait(job_id).status == "succeeded"
    assert len(failed) == 3
    assert place.starts(job_id) == 1
    assert place.steps_told(job_id) == list(range(1, 31))
    assert len(place.job(job_id).result_files) == 1
    assert place.told_outside() == {job_id: ["fine_tuning.job.succeeded"]}


def test_a_training_makes_way_while_the_database_stays_away_and_goes_on_after_that(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "DATABASE_WAIT_S", 0.0)
    place.serve()
    job_id = place.create(steps=60, step_s=0.02)
    place.until(lambda: place.steps_told(job_id), job_id)
    with failing_writes("events_offset=", 1) as failed:
        assert place.wait(job_id).status == "succeeded"
    assert failed
    assert place.starts(job_id) == 2
    assert place.steps_told(job_id) == list(range(1, 61))
    assert place.run(job_id).manifest["metrics"]["steps_done"] == list(range(1, 61))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_connections_that_are_cut_for_three_seconds_cost_no_job(place: JobPlace, postgresql: PostgreSQL) -> None:
    place.serve()
    jobs = [place.create(steps=150, step_s=0.03) for _ in range(3)]
    for job_id in jobs:
        place.until(lambda job_id=job_id: place.steps_told(job_id), job_id)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        postgresql.cut_connections()
        time.sleep(0.02)
    for job_id in jobs:
        assert place.wait(job_id).status == "succeeded"
        assert place.starts(job_id) == 1
        assert place.steps_told(job_id) == list(range(1, 151))
    assert place.told_outside() == {job_id: ["fine_tuning.job.succeeded"] for job_id in jobs}


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("is_pausing", "under_way", "request_", "becomes"),
    [
        (True, lambda session, job_id: states.mark_stopped(session, job_id, 3), states.resume, "queued"),
        (False, lambda session, job_id: states.requeue(session, job_id, "again"), states.pause, "paused"),
    ],
)
def test_a_request_that_meets_a_change_under_way_is_not_lost(
    place: JobPlace, is_pausing: bool, under_way: Any, request_: Any, becomes: str
) -> None:
    job_id = place.create()
    with place.database.session() as session:
        states.change(session, job_id, {"queued"}, status="running", pause_requested=is_pausing)
    asking = threading.Thread(target=place.do, args=(request_, job_id))
    with place.database.session() as session:
        assert under_way(session, job_id)
        asking.start()
        asking.join(0.5)  # it waits, or looks at what was before
    asking.join()
    job = place.job(job_id)
    assert (job.status, job.pause_requested) == (becomes, False)


def test_an_adapter_that_the_engine_refuses_is_kept_and_the_job_says_so(place: JobPlace) -> None:
    place.serve()
    assert place.server is not None

    async def refuse(name: str, path: Path) -> None:
        if "ckpt-step" not in name:
            raise AdapterError(f"The engine couldn't load {name}: no such layer.")

    place.server.engine.load_adapter = refuse  # type: ignore[method-assign]
    job_id = place.create()
    job = place.wait(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == ("failed", "adapter_not_servable")
    assert f"kept as {job.adapter_id}" in job.error["message"]
    assert str(place.data_dir) not in job.error["message"]
    kept = place.data_dir / "unserved" / job.adapter_id
    place.until(lambda: not (place.settings.adapters_dir / job.adapter_id).exists())
    assert (kept / "adapter_model.safetensors").read_bytes() == (
        place.template / "adapter_model.safetensors"
    ).read_bytes()
    assert (kept / "manifest.json").exists()


def test_an_engine_without_memory_is_tried_again_and_the_model_stays(place: JobPlace) -> None:
    place.serve()
    assert place.server is not None
    tries: list[str] = []

    async def lack_memory(name: str, path: Path) -> None:
        tries.append(name)
        if len(tries) < 3:
            raise EngineUnavailableError("The engine can't do this now: out of memory.", 5)

    place.server.engine.load_adapter = lack_memory  # type: ignore[method-assign]
    job = place.wait(place.create())
    assert (job.status, tries) == ("succeeded", [job.wanted_model] * 3)
    assert job.wanted_model in place.served()


def test_an_engine_that_never_answers_ends_the_job_with_a_warning(
    place: JobPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finish, "ENGINE_WAIT_S", 0.5)

    class Hanging(FakeAnswer):
        async def read(self) -> bytes:
            await asyncio.sleep(3600)
            return b""

    place.serve()
    assert place.server is not None
    place.server.engine.script = lambda body: Hanging()
    job_id = place.create()
    job = place.wait(job_id)
    assert (job.status, job.first_token_s) == ("succeeded", None)
    (warned,) = [told.message for told in place.events(job_id) if told.level == "warn"]
    assert warned.startswith("The engine returned no token")
