"""One job from its files to its end, and everything that can become of it on the way."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest

from server.jobs import states
from server.wire.errors import Conflict, NotFound
from tests.server.jobs.conftest import JobPlace


@pytest.mark.both_databases
def test_a_job_is_validated_trained_and_its_model_answers(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(status="validating_files")
    job = place.wait(job_id)
    assert (job.status, job.error) == ("succeeded", None)
    assert job.fine_tuned_model == job.wanted_model
    assert job.wanted_model in place.served()
    assert job.trained_tokens == 1000
    assert job.first_token_s is not None
    (first_token,) = [told.data for told in place.events(job_id) if told.message.startswith("The model returned")]
    assert first_token == {"first_token_s": job.first_token_s}
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.estimated_finish is None
    assert place.steps_told(job_id) == list(range(1, 11))
    messages = [message for message in place.messages(job_id) if not message.startswith(("Step ", "loaded"))]
    first, second = place.checkpoints(job_id)
    assert messages == [
        f"Created fine-tuning job: {job_id}",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        f"Checkpoint created at step 5 with Snapshot ID: {first.model}",
        f"Checkpoint created at step 10 with Snapshot ID: {second.model}",
        f"The model returned its first token {job.first_token_s:.2f} s after training",
        f"New fine-tuned model created: {job.wanted_model}",
        "The job has successfully completed",
    ]
    assert place.told_outside() == {job_id: ["fine_tuning.job.succeeded"]}


def test_auto_becomes_numbers_and_what_was_set_stays(place: JobPlace) -> None:
    place.serve()
    job = place.wait(place.create())
    assert job.hyperparameters == {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 1.5}


def test_the_result_file_is_plain_csv_with_a_row_a_step(place: JobPlace) -> None:
    place.serve()
    job = place.wait(place.create())
    assert place.server is not None
    (file_id,) = job.result_files
    with place.server.services.files.path(file_id).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 11))
    assert rows[-1]["valid_loss"] == "0.5"


def test_checkpoints_answer_under_names_of_their_own_and_the_oldest_go(place: JobPlace) -> None:
    place.serve(checkpoints_kept=2)
    job_id = place.create(steps=20)
    job = place.wait(job_id)
    rows = place.checkpoints(job_id)
    assert [row.step_number for row in rows] == [15, 20]
    assert {row.model for row in rows} | {job.wanted_model} == place.served()
    assert all(row.id.startswith("ftckpt_") for row in rows)
    names = [row.model.split(":") for row in rows]
    assert all(name[:4] == job.wanted_model.split(":")[:4] for name in names)
    assert all(name[4] != job.wanted_model.split(":")[4] for name in names)
    assert rows[-1].metrics == {
        "step": 20,
        "train_loss": 0.05,
        "train_mean_token_accuracy": 0.7,
        "valid_loss": 0.5,
        "valid_mean_token_accuracy": 0.8,
        "full_valid_loss": 0.5,
        "full_valid_mean_token_accuracy": 0.8,
    }


def test_faulty_files_fail_the_job_before_anything_is_trained(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(status="validating_files", examples='{"messages": []}\n')
    job = place.wait(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("invalid_training_file", "training_file")
    assert place.starts(job_id) == 0
    assert place.told_outside() == {job_id: ["fine_tuning.job.failed"]}


@pytest.mark.parametrize(
    ("code", "param", "told"),
    [
        ("invalid_data", "training_file", ("invalid_training_file", "training_file")),
        ("invalid_data", "validation_file", ("invalid_validation_file", "validation_file")),
        ("invalid_data", "mix_file", ("invalid_mix_file", "tuneloop.mix_file")),
        ("invalid_config", "lora_alpha", ("invalid_hyperparameters", "lora_alpha")),
        ("out_of_memory", "batch_size", ("out_of_memory", "batch_size")),
        ("internal_error", None, ("server_error", None)),
    ],
)
def test_the_reason_of_a_failed_run_becomes_the_jobs_error_without_paths(
    place: JobPlace, code: str, param: str | None, told: tuple[str, str | None]
) -> None:
    place.serve()
    failure = {"message": "see {run}/training.jsonl and /etc/secret/place.txt", "code": code, "param": param}
    job_id = place.create(fails_at=3, failure=failure)
    job = place.wait(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == told
    assert job.error["message"] == "see file-training and place.txt"
    assert all(str(place.data_dir) not in message for message in place.messages(job_id))


def test_a_process_that_dies_without_a_word_goes_on_and_fails_in_the_end(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(dies_at=7)
    job = place.wait(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "training_process_died"
    # The first process makes the checkpoint of step 5; the three after it make none.
    assert place.starts(job_id) == 4
    assert place.steps_told(job_id) == [1, 2, 3, 4, 5, 6]
    assert [event.level for event in place.events(job_id)].count("warn") == 3


def test_an_adapter_that_cannot_be_served_fails_the_job_and_is_kept_aside(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(manifest={"manifest_version": 1, "id": "adapter-other"})
    job = place.wait(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == ("failed", "adapter_not_servable")
    place.until(lambda: not (place.settings.adapters_dir / job.adapter_id).exists())
    assert (place.data_dir / "unserved" / job.adapter_id / "adapter_model.safetensors").exists()


def test_a_whole_model_is_not_loaded_and_the_job_says_so(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(config={"serve_as": "model"})
    assert place.wait(job_id).status == "succeeded"
    assert any("full model" in message for message in place.messages(job_id))
    assert place.checkpoints(job_id) == []


def test_no_more_jobs_run_than_are_allowed_and_in_the_order_of_the_queue(place: JobPlace) -> None:
    place.serve(max_running_jobs=1)
    jobs = [place.create(steps=3, closing_s=0.2) for _ in range(4)]
    ended = [place.wait(job_id) for job_id in jobs]
    started = [place.events(job_id)[2] for job_id in jobs]
    assert all(event.message.startswith(("The job is waiting", "Fine-tuning job started")) for event in started)
    order = [
        next(event.number for event in place.events(job_id) if event.message == "Fine-tuning job started")
        for job_id in jobs
    ]
    completed = [place.events(job_id)[-1].number for job_id in jobs]
    assert all(job.status == "succeeded" for job in ended)
    assert order == sorted(order)
    assert all(done < begun for done, begun in zip(completed, order[1:], strict=False))


@pytest.mark.both_databases
def test_a_paused_job_goes_on_where_it_was(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(steps=100, step_s=0.02)
    place.until(lambda: len(place.steps_told(job_id)) > 3, job_id)
    assert place.do(states.pause, job_id).pause_requested
    assert place.wait(job_id, "paused").finished_at is None
    steps = place.steps_told(job_id)
    assert f"Job paused at step {steps[-1]}" in place.messages(job_id)
    place.do(states.resume, job_id)
    assert place.wait(job_id).status == "succeeded"
    assert place.steps_told(job_id) == list(range(1, 101))
    assert place.starts(job_id) == 2
    assert len([message for message in place.messages(job_id) if message.startswith("loaded from")]) == 1


def test_a_job_that_is_cancelled_while_it_runs_leaves_no_process_and_no_model(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(steps=1000, is_deaf=True)
    place.until(lambda: place.checkpoints(job_id), job_id)
    assert place.do(states.cancel, job_id).status == "cancelled"
    pid = int((place.run(job_id).path / "starts.txt").read_text())
    place.until(lambda: not _is_alive(pid), job_id)
    job = place.job(job_id)
    assert (job.status, job.fine_tuned_model) == ("cancelled", None)
    assert place.told_outside() == {job_id: ["fine_tuning.job.cancelled"]}
    place.stop()
    assert place.served() == {row.model for row in place.checkpoints(job_id)}


def test_a_result_that_comes_after_the_cancellation_is_removed(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(steps=2, silence_s=30)
    place.until(lambda: place.run(job_id).is_done, job_id)
    place.do(states.cancel, job_id)
    place.until(lambda: not place.run(job_id).is_done, job_id)
    assert place.job(job_id).status == "cancelled"


@pytest.mark.both_databases
def test_what_has_ended_cannot_be_changed_and_what_is_unknown_not_found(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(steps=2)
    assert place.wait(job_id).status == "succeeded"
    for what in (states.pause, states.resume, states.cancel):
        with pytest.raises(Conflict, match="succeeded"):
            place.do(what, job_id)
        with pytest.raises(NotFound):
            place.do(what, "ftjob-nobody")
    other = place.create(status="paused")
    assert place.do(states.cancel, other).status == place.do(states.cancel, other).status == "cancelled"
    with pytest.raises(Conflict, match="cancelled"):
        place.do(states.resume, other)
    assert place.told_outside()[other] == ["fine_tuning.job.cancelled"]


@pytest.mark.both_databases
def test_a_job_paused_before_it_was_validated_is_validated_when_resumed(place: JobPlace) -> None:
    job_id = place.create(status="validating_files")
    assert place.do(states.pause, job_id).status == "paused"
    assert place.do(states.pause, job_id).status == "paused"
    assert place.do(states.resume, job_id).status == "validating_files"
    assert place.messages(job_id).count("Job paused") == 1
    other = place.create()
    place.do(states.pause, other)
    assert place.do(states.resume, other).status == "queued"


def test_a_training_that_somebody_else_stops_goes_on(place: JobPlace) -> None:
    place.serve()
    job_id = place.create(steps=60, step_s=0.02)
    place.until(lambda: place.steps_told(job_id), job_id)
    os.kill(int((place.run(job_id).path / "starts.txt").read_text()), signal.SIGTERM)
    assert place.wait(job_id).status == "succeeded"
    assert place.starts(job_id) == 2
    assert place.steps_told(job_id) == list(range(1, 61))


def test_a_run_is_tracked_under_the_name_that_was_asked_for(place: JobPlace) -> None:
    place.serve()
    wandb = {"project": "p", "name": None, "entity": "team", "tags": ["a", "b"]}
    job_id = place.create(integrations=[{"type": "wandb", "wandb": wandb}])
    place.wait(job_id)
    tracking = json.loads((place.run(job_id).path / "tracking.json").read_text())
    assert tracking == {"WANDB_NAME": job_id, "WANDB_ENTITY": "team", "WANDB_TAGS": "a,b"}


def test_a_checkpoint_that_is_gone_or_unfit_is_a_warning_and_no_failure(place: JobPlace) -> None:
    (place.template / "adapter_model.safetensors").write_bytes(b"torn")
    place.serve()
    job_id = place.create(config={"serve_as": "adapter"}, steps=7, manifest={"manifest_version": 1})
    place.wait(job_id)
    (warned,) = [event.message for event in place.events(job_id) if event.level == "warn"]
    assert warned.startswith("The checkpoint at step 5 isn't served: checkpoint-5")
    assert place.checkpoints(job_id) == []


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
