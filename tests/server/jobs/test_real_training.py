"""Real trainings on the embedded base: what is broken off and goes on ends bit for bit as what is left alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from server.jobs import states
from server.jobs.run.queue import TRAINING
from tests.forking_python import ForkingPython, through
from tests.server.jobs.conftest import JobPlace
from training.demo.examples import demo_config, example_lines

SHORT = {"n_epochs": 1, "max_steps": 16, "batch_size": 4, "save_steps": 4, "eval_steps": 8, "learning_rate": 1e-3}
EXAMPLES = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in map(json.loads, example_lines()[:60]))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def forked_training(forking_python: ForkingPython) -> Sequence[str]:
    """The command, run as a fork: with the same words, in the same place."""
    return through(str(forking_python.path), TRAINING)


def test_paused_and_killed_trainings_end_bit_for_bit_as_an_unbroken_one(
    real_place: JobPlace, forked_training: Sequence[str]
) -> None:
    """The killed one is started as a user's is, so that it is also seen that the others learn what such a one does."""
    place = real_place
    place.serve(command=forked_training, max_running_jobs=1)
    unbroken = _create(place)
    paused = _create(place)
    assert place.wait(unbroken).status == "succeeded"
    place.until(lambda: 6 in place.steps_told(paused), paused)
    place.do(states.pause, paused)
    place.wait(paused, "paused")
    place.do(states.resume, paused)
    assert place.wait(paused).status == "succeeded"
    place.stop()

    server = place.serve_in_process(command=TRAINING)
    killed = _create(place)
    place.until(lambda: 6 in place.steps_told(killed), killed)
    server.kill()
    server.wait()
    place.serve(command=TRAINING)
    assert place.wait(killed).status == "succeeded"

    weights = [_weights(place, job_id) for job_id in (unbroken, paused, killed)]
    assert weights[0] == weights[1] == weights[2]
    for job_id in (unbroken, paused, killed):
        assert place.steps_told(job_id) == list(range(1, 17))
        job = place.job(job_id)
        assert (job.status, job.hyperparameters["batch_size"]) == ("succeeded", 4)
        assert {row.model for row in place.checkpoints(job_id)} <= place.served()
        assert place.job(job_id).trained_tokens == place.job(unbroken).trained_tokens


def test_a_second_training_on_the_same_directory_is_refused(real_place: JobPlace) -> None:
    import fcntl
    import subprocess

    job_id = _create(real_place)
    run = real_place.run(job_id)
    with run.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4321")
        lock.flush()
        refused = subprocess.run([*TRAINING, str(run.path)], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "in use by process 4321" in refused.stderr


def test_faults_of_the_general_examples_are_not_blamed_on_the_training_file(
    real_place: JobPlace, tmp_path: Path, forked_training: Sequence[str]
) -> None:
    mix = tmp_path / "mix.jsonl"
    mix.write_text('{"messages": []}\n')
    real_place.serve(command=forked_training)
    job = real_place.wait(_create(real_place, mix_file=str(mix)))
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("invalid_mix_file", "tuneloop.mix_file")
    assert str(tmp_path) not in job.error["message"]


def _create(place: JobPlace, **settings: Any) -> str:
    config: dict[str, Any] = demo_config(place.base.path, "unused").to_dict() | SHORT | settings
    mine = ("base_model", "training_file", "output_dir", "fine_tuned_model", "validation_file")
    return place.create(config={name: value for name, value in config.items() if name not in mine}, examples=EXAMPLES)


def _weights(place: JobPlace, job_id: str) -> bytes:
    folder: Path = place.settings.adapters_dir / place.job(job_id).adapter_id
    return (folder / "adapter_model.safetensors").read_bytes()
