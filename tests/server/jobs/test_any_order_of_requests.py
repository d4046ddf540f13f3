"""Pauses, resumptions and cancellations at any moment, in any order: the end is the right one and is told once."""

from __future__ import annotations

import contextlib
import random
import time

import pytest

from server.jobs import states
from server.wire.errors import Conflict
from tests.server.jobs.conftest import JobPlace

SEQUENCES = 60
"""On each database."""
AT_ONCE = 20
WAYS = (states.pause, states.resume, states.pause, states.resume, states.cancel)


@pytest.mark.both_databases
def test_random_sequences_end_right_and_are_told_once(place: JobPlace) -> None:
    place.serve(max_running_jobs=4)
    chance = random.Random(4)
    cancelled: set[str] = set()
    jobs: list[str] = []
    for first in range(0, SEQUENCES, AT_ONCE):
        batch = [
            place.create(steps=6, save_steps=3, status="validating_files" if number % 10 == 0 else "queued")
            for number in range(first, first + AT_ONCE)
        ]
        for _ in range(3 * AT_ONCE):
            time.sleep(chance.uniform(0, 0.05))
            job_id, way = chance.choice(batch), chance.choice(WAYS)
            with contextlib.suppress(Conflict):
                place.do(way, job_id)
                cancelled |= {job_id} if way is states.cancel else set()
        for job_id in batch:
            with contextlib.suppress(Conflict):
                place.do(states.resume, job_id)
        for job_id in batch:
            place.wait(job_id)
        jobs += batch
    place.stop()
    assert len(cancelled) > SEQUENCES / 10
    for job_id in jobs:
        _ended_right(place, job_id, was_cancelled=job_id in cancelled)
    told = {job_id: ["fine_tuning.job." + ("cancelled" if job_id in cancelled else "succeeded")] for job_id in jobs}
    assert place.told_outside() == told


def _ended_right(place: JobPlace, job_id: str, *, was_cancelled: bool) -> None:
    job, run = place.job(job_id), place.run(job_id)
    messages, steps = place.messages(job_id), place.steps_told(job_id)
    assert job.status == ("cancelled" if was_cancelled else "succeeded")
    assert steps == list(range(1, len(steps) + 1)), "a step was lost or told twice"
    assert not (run.path / "refused.txt").exists(), "two processes worked on one run"
    assert job.pause_requested is False
    assert run.is_done is not was_cancelled
    checkpoints = [message for message in messages if message.startswith("Checkpoint created")]
    assert len(checkpoints) == len(set(checkpoints))
    ends = ("Job cancelled", "The job has successfully completed")
    assert [message for message in messages if message in ends] == [ends[0] if was_cancelled else ends[1]]
    assert messages[-1] == (ends[0] if was_cancelled else ends[1])
    if not was_cancelled:
        assert len(steps) == 6
        assert run.manifest["metrics"]["steps_done"] == [1, 2, 3, 4, 5, 6]
