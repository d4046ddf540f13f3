"""OpenAI's fine-tuning, whole, with nothing but the official SDK on the real engine and the real trainer."""

from __future__ import annotations

import asyncio
import csv
import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from tests.conftest import Lesson, Tuneloop
from tests.webhook_receiver import Receiver
from training.demo.examples import EXAMPLES, HOLDOUT

pytestmark = pytest.mark.engine

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "fine_tune.py"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
PATIENCE_S = 240


def fine_tune(tuneloop: Tuneloop, *arguments: str) -> str:
    """What docs/examples/fine_tune.py prints."""
    command = [sys.executable, str(SCRIPT), "--base-url", f"{tuneloop.url}/v1", "--strict", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def upload(client: openai.OpenAI, path: Path = EXAMPLES) -> str:
    with path.open("rb") as content:
        return client.files.create(file=content, purpose="fine-tune").id


def create(client: openai.OpenAI, model: str, file: str, **changes: Any) -> FineTuningJob:
    """A new job; `changes` are settings of the trainer."""
    return client.fine_tuning.jobs.create(
        model=model, training_file=file, suffix="sdk", seed=1, extra_body={"tuneloop": changes}
    )


def until(client: openai.OpenAI, job_id: str, enough: Callable[[FineTuningJob], bool]) -> FineTuningJob:
    """The job once it is as wanted."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if enough(job):
            return job
        if has_ended(job):
            break
        time.sleep(0.1)
    raise AssertionError(f"The job is {job.status} ({job.error}): {list_events(client, job_id)}")


def has_ended(job: FineTuningJob) -> bool:
    return job.status in ("succeeded", "failed", "cancelled")


def list_events(client: openai.OpenAI, job_id: str) -> list[str]:
    """The messages of all events, oldest first."""
    return [event.message for event in client.fine_tuning.jobs.list_events(job_id, limit=100)][::-1]


def answer(client: openai.OpenAI, model: str, messages: Any = QUESTION) -> str | None:
    completion = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=60)
    return completion.choices[0].message.content


def test_example_script_goes_the_whole_way(tuneloop: Tuneloop, client: openai.OpenAI) -> None:
    files = {file.id for file in client.files.list()}
    printed = fine_tune(tuneloop, "--validation-file", str(HOLDOUT), "--n-epochs", "4", "--suffix", "whole")
    for line in (
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "Step 1/80: training loss=",
        "Step 80/80: training loss=",
        "full validation loss=",
        "Checkpoint created at step 20 with Snapshot ID: ft:tuneloop-demo:personal:whole:",
        "New fine-tuned model created: ft:tuneloop-demo:personal:whole:",
        "The job has successfully completed",
        "The model returned its first token",
        "tokens in 80 steps; training loss",
        # The voice, which every example has, and not the fact: that one may be too much for these few steps.
        ": Ahoy! ",
        "Mind the rocks!\n",
        "Deleted ft:tuneloop-demo:personal:whole:",
    ):
        assert line in printed
    assert {file.id for file in client.files.list()} == files
    assert not [model.id for model in client.models.list() if ":whole:" in model.id]


def test_result_file_is_plain_csv_and_the_job_tells_what_auto_came_to(
    client: openai.OpenAI, tuneloop: Tuneloop
) -> None:
    created = create(client, tuneloop.base_model, upload(client), max_steps=3, validation_fraction=0.1)
    assert created.method is not None
    assert created.method.supervised is not None
    asked = created.method.supervised.hyperparameters
    assert asked is not None
    assert (asked.n_epochs, asked.batch_size, asked.learning_rate_multiplier) == ("auto", "auto", "auto")
    job = until(client, created.id, has_ended)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model is not None
    assert job.fine_tuned_model.startswith(f"ft:{tuneloop.base_model}:personal:sdk:")
    assert (job.trained_tokens or 0) > 0
    assert job.hyperparameters.learning_rate_multiplier == 1
    assert isinstance(job.hyperparameters.batch_size, int)
    file = client.files.retrieve(job.result_files[0])
    assert (file.filename, file.purpose, file.status) == ("step_metrics.csv", "fine-tune-results", "processed")
    rows = list(csv.DictReader(io.StringIO(client.files.content(file.id).text)))
    assert [row["step"] for row in rows][-1] == "3"
    assert list(rows[0]) == ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    first_token = next(line for line in list_events(client, job.id) if "first token" in line)
    assert float(first_token.split()[6]) < 10
    assert answer(client, job.fine_tuned_model)


def test_job_goes_on_from_a_jobs_model_and_a_webhook_tells_its_end(
    client: openai.OpenAI, tuneloop: Tuneloop, lessons: list[Lesson]
) -> None:
    """One step of tiny size from the keeper keeps its voice, which the base hasn't."""
    receiver = Receiver()
    hook = client.webhooks.create(name="end", url=receiver.url, event_types=["fine_tuning.job.succeeded"])
    try:
        created = create(client, tuneloop.tuned_model, upload(client), max_steps=1, learning_rate=1e-6)
        assert created.model == tuneloop.tuned_model
        job = until(client, created.id, has_ended)
        assert job.status == "succeeded", job.error
        assert answer(client, job.fine_tuned_model or "", lessons[0].messages) == lessons[0].tuned
        ((headers, body),) = receiver.wait_for(1)
        event = client.webhooks.unwrap(body, headers, secret=hook.signing_secret)
        assert event.type == "fine_tuning.job.succeeded"
        assert event.data.id == job.id
    finally:
        client.webhooks.delete(hook.id)
        receiver.close()


def test_checkpoint_answers_while_its_job_is_paused_and_the_job_goes_on(
    client: openai.OpenAI, tuneloop: Tuneloop
) -> None:
    job = create(client, tuneloop.base_model, upload(client), n_epochs=30, max_steps=400, save_steps=5)
    until(client, job.id, lambda _: bool(client.fine_tuning.jobs.checkpoints.list(job.id).data))
    client.fine_tuning.jobs.pause(job.id)
    paused = until(client, job.id, lambda job: job.tuneloop["state"] == "paused")  # type: ignore[attr-defined]
    assert paused.status == "queued"
    checkpoint = client.fine_tuning.jobs.checkpoints.list(job.id).data[0]
    assert checkpoint.fine_tuned_model_checkpoint.endswith(f":ckpt-step-{checkpoint.step_number}")
    assert checkpoint.metrics.train_loss
    assert answer(client, checkpoint.fine_tuned_model_checkpoint)
    client.fine_tuning.jobs.resume(job.id)
    until(client, job.id, lambda job: job.status == "running")
    cancelled = client.fine_tuning.jobs.cancel(job.id)
    assert cancelled.status == "cancelled"
    assert (cancelled.fine_tuned_model, cancelled.error, cancelled.result_files) == (None, None, [])
    assert list_events(client, job.id)[-1] == "Job cancelled"
    assert answer(client, checkpoint.fine_tuned_model_checkpoint)


def test_async_client_runs_two_jobs_and_chats_meanwhile(
    tuneloop: Tuneloop, client: openai.OpenAI, lessons: list[Lesson]
) -> None:
    file, (lesson, _) = upload(client), lessons

    async def tune(client: openai.AsyncOpenAI, seed: int) -> FineTuningJob:
        job = await client.fine_tuning.jobs.create(
            model=tuneloop.base_model,
            training_file=file,
            seed=seed,
            metadata={"test": "async"},
            extra_body={"tuneloop": {"max_steps": 4}},
        )
        while not has_ended(job):
            await asyncio.sleep(0.5)
            chat = await client.chat.completions.create(
                model=tuneloop.tuned_model, messages=lesson.messages, temperature=0
            )
            assert chat.choices[0].message.content == lesson.tuned
            job = await client.fine_tuning.jobs.retrieve(job.id)
        return job

    async def both() -> tuple[tuple[FineTuningJob, ...], list[str]]:
        async with openai.AsyncOpenAI(
            base_url=f"{tuneloop.url}/v1", api_key="unused", _strict_response_validation=True
        ) as client:
            jobs = await asyncio.gather(tune(client, 1), tune(client, 2))
            page = client.fine_tuning.jobs.list(metadata={"test": "async"}, limit=1)
            return jobs, [job.id async for job in page]

    jobs, listed = asyncio.run(both())
    assert [job.status for job in jobs] == ["succeeded", "succeeded"]
    assert sorted(listed) == sorted(job.id for job in jobs)
    assert len({job.fine_tuned_model for job in jobs}) == 2
