"""A server that is killed at any moment loses no job and does nothing twice; one that is stopped leaves no process."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from server.jobs import states
from serving import EngineState
from tests.forked import Forked
from tests.server.jobs.conftest import JobPlace

ROUNDS = 6
"""On each database."""


@pytest.mark.both_databases
def test_killed_while_jobs_are_validated_queued_running_and_ending(place: JobPlace) -> None:
    chance = random.Random(9)
    jobs: list[str] = []
    for number in range(ROUNDS):
        server = place.serve_in_process()
        status = "validating_files" if number % 2 else "queued"
        jobs += [place.create(steps=15, step_s=0.03, status=status), place.create(steps=4), place.create(steps=4)]
        time.sleep(chance.uniform(0.1, 1.5))
        server.kill()
        server.wait()
    server = place.serve_in_process()
    for job_id in jobs:
        assert place.wait(job_id).status == "succeeded"
    _stop(server)
    for job_id in jobs:
        _whole(place, job_id)
    assert place.told_outside() == {job_id: ["fine_tuning.job.succeeded"] for job_id in jobs}
    noted = {row.model for job_id in jobs for row in place.checkpoints(job_id)}
    assert place.served() == {place.job(job_id).wanted_model for job_id in jobs} | noted


def test_killed_while_a_finished_job_waits_for_its_first_token(place: JobPlace) -> None:
    place.serve(engine=EngineState.STARTING)
    job_id = place.create(steps=4)
    place.until(lambda: place.run(job_id).is_done, job_id)
    time.sleep(0.3)
    assert place.job(job_id).status == "running"
    place.stop()  # leaves the row as a killed server does
    assert place.job(job_id).status == "running"
    place.serve_in_process()
    assert place.wait(job_id).status == "succeeded"
    assert place.starts(job_id) == 1
    _whole(place, job_id)


def test_a_job_cancelled_while_no_server_runs_leaves_no_result(place: JobPlace) -> None:
    place.serve(engine=EngineState.STARTING)
    job_id = place.create(steps=4)
    place.until(lambda: place.run(job_id).is_done, job_id)
    place.stop()
    place.do(states.cancel, job_id)
    place.serve_in_process()
    place.until(lambda: not place.run(job_id).is_done, job_id)
    assert place.job(job_id).status == "cancelled"


def test_a_stopped_server_leaves_a_checkpoint_and_no_process(place: JobPlace) -> None:
    server = place.serve_in_process()
    job_id = place.create(steps=1000, step_s=0.01, save_steps=1000)
    place.until(lambda: place.steps_told(job_id), job_id)
    pid = int((place.run(job_id).path / "starts.txt").read_text())
    _stop(server)
    assert not Path(f"/proc/{pid}").exists()
    assert place.job(job_id).status == "running"
    steps = place.steps_told(job_id)
    assert place.run(job_id).last_checkpoint == steps[-1]
    place.serve()
    place.until(lambda: len(place.steps_told(job_id)) > len(steps), job_id)
    assert "The server was restarted; the job resumes from its last checkpoint" in place.messages(job_id)
    place.do(states.cancel, job_id)


def test_a_job_paused_while_its_server_is_killed_stays_paused(place: JobPlace) -> None:
    server = place.serve_in_process()
    job_id = place.create(steps=1000, step_s=0.01, is_deaf=True)
    place.until(lambda: place.steps_told(job_id), job_id)
    place.do(states.pause, job_id)
    server.kill()
    place.serve()
    place.wait(job_id, "paused")
    assert place.job(job_id).pause_requested is False


def _whole(place: JobPlace, job_id: str) -> None:
    messages, steps = place.messages(job_id), place.steps_told(job_id)
    total = len(place.run(job_id).manifest["metrics"]["steps_done"])
    assert place.run(job_id).manifest["metrics"]["steps_done"] == list(range(1, total + 1))
    assert steps == list(range(1, total + 1)), "a step was lost or told twice"
    assert not (place.run(job_id).path / "refused.txt").exists(), "two processes worked on one run"
    for once in ("Fine-tuning job started", states.VALIDATED, "The job has successfully completed"):
        assert messages.count(once) == 1
    checkpoints = [message for message in messages if message.startswith("Checkpoint created")]
    assert len(checkpoints) == len(set(checkpoints))
    assert len(place.job(job_id).result_files) == 1


def _stop(server: Forked) -> None:
    server.terminate()
    assert server.wait(60) == 0
