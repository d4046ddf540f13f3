"""What is left on disk and in the tables of a job that has ended, and of a server that died over it."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from server.jobs import states
from tests.server.jobs.conftest import JobPlace

WORKINGS = {"training.jsonl", "validation.jsonl", "mix.jsonl", "from_adapter", "best", "checkpoints"}


def _fill(place: JobPlace, job_id: str) -> None:
    """What a run may have besides what the fake one makes."""
    run = place.run(job_id).path
    for name in ("validation.jsonl", "mix.jsonl"):
        (run / name).write_bytes((run / "training.jsonl").read_bytes())
    for name in ("from_adapter", "best", "checkpoints"):
        (run / name).mkdir(exist_ok=True)
        (run / name / "adapter_model.safetensors").write_bytes(b"large")


def _names(place: JobPlace, job_id: str) -> set[str]:
    return {path.name for path in place.run(job_id).path.iterdir()}


def test_a_job_that_succeeded_keeps_what_it_told_and_not_what_it_was_made_from(place: JobPlace) -> None:
    job_id = place.create()
    _fill(place, job_id)
    place.serve()
    assert place.wait(job_id).status == "succeeded"
    place.until(lambda: not WORKINGS & _names(place, job_id), job_id)
    assert {"config.json", "events.jsonl", "plan.json", "output.log", "metrics.csv"} <= _names(place, job_id)


@pytest.mark.parametrize("status", ["validating_files", "queued", "paused"])
def test_a_job_that_is_cancelled_before_it_ran_keeps_no_data(place: JobPlace, status: str) -> None:
    place.serve(max_running_jobs=1)
    busy = place.create(steps=1000, step_s=0.02)
    place.wait(busy, "running")
    job_id = place.create(status=status)
    place.do(states.cancel, job_id)
    place.until(lambda: not WORKINGS & _names(place, job_id), job_id)
    assert "config.json" in _names(place, job_id)
    assert "training.jsonl" in _names(place, busy)


def test_a_job_whose_files_are_faulty_keeps_no_data(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(status="validating_files", examples='{"messages": []}\n')
    assert place.wait(job_id).status == "failed"
    place.until(lambda: not WORKINGS & _names(place, job_id), job_id)


def test_what_a_dead_server_left_of_ended_jobs_is_removed_by_the_next(place: JobPlace) -> None:
    ended = {status: place.create() for status in ("succeeded", "failed", "cancelled")}
    waiting = place.create(status="paused")
    for job_id in (*ended.values(), waiting):
        _fill(place, job_id)
    with place.database.session() as session:
        for status, job_id in ended.items():
            states.change(session, job_id, {"queued"}, status=status, finished_at=1)
    place.serve()
    for job_id in ended.values():
        place.until(lambda job_id=job_id: not WORKINGS & _names(place, job_id), job_id)
    assert _names(place, waiting) >= WORKINGS


def test_half_written_adapters_of_nobody_are_removed_at_the_start(place: JobPlace) -> None:
    waiting = place.job(place.create(status="paused"))
    adapters = place.settings.adapters_dir
    long_ago = time.time() - 3600
    old, young, expected = (adapters / f".partial-{name}" for name in ("old", "young", waiting.adapter_id))
    for folder in (old, young, expected):
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
    for path in (old, expected, old / "adapter_config.json", expected / "adapter_config.json"):
        os.utime(path, (long_ago, long_ago))
    place.serve()
    assert [folder.exists() for folder in (old, young, expected)] == [False, True, True]


def test_checkpoints_that_are_gone_or_too_many_are_dropped_at_the_next_start(place: JobPlace) -> None:
    place.serve(checkpoints_kept=4)
    job_id = place.create(steps=20)
    place.wait(job_id)
    place.stop()
    rows = place.checkpoints(job_id)
    assert [row.step_number for row in rows] == [5, 10, 15, 20]
    shutil.rmtree(place.settings.adapters_dir / rows[-1].adapter_id)
    place.serve(checkpoints_kept=3)
    left = place.checkpoints(job_id)
    assert [row.step_number for row in left] == [10, 15]
    assert {row.model for row in left} | {place.job(job_id).wanted_model} == place.served()


def test_a_checkpoint_that_was_deleted_while_its_job_ran_has_no_row_after_the_end(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(steps=40, step_s=0.02)
    first = place.until(lambda: place.checkpoints(job_id), job_id)[0]
    shutil.rmtree(place.settings.adapters_dir / first.adapter_id)
    place.wait(job_id)
    place.until(lambda: first.model not in {row.model for row in place.checkpoints(job_id)}, job_id)
    assert place.checkpoints(job_id)
