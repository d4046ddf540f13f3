"""Runs that are killed, stopped, or run out of memory, and what becomes of them."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.integrations.bitsandbytes import Bnb4bitQuantize

from tests.training.runs import Run, make_run
from tests.training.tiny_models import make_tiny_model
from training.config.config import TrainingConfig
from training.data.inputs import RunInputs
from training.process.memory import OutOfMemoryError
from training.process.stopping import StopRequest
from training.record.journal import Journal
from training.record.progress import EventWriter, ProgressEvent
from training.run.run import run as run_training

SHORT = {"max_steps": 12, "save_steps": 3, "validation_file": None, "validation_fraction": 0.1}


def wait_for(run: Run, process: subprocess.Popen[str], kind: str, step: int) -> None:
    """Until the run has told of a `kind` event at `step` or later."""
    deadline = time.monotonic() + 120
    while not any(event.type == kind and (event.step or 0) >= step for event in run.events):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {kind} {step} in time"
        time.sleep(0.005)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return dict(load_file(run.output_dir / "adapter_model.safetensors"))


def losses(run: Run) -> dict[int, tuple[float | None, float | None]]:
    """(training loss, validation loss) by step, as told last."""
    told: dict[int, tuple[float | None, float | None]] = {}
    for event in run.events:
        if event.type in ("step", "validation") and event.step is not None:
            before = told.get(event.step, (None, None))
            told[event.step] = (event.train_loss or before[0], event.valid_loss or before[1])
    return told


def test_a_run_killed_at_three_random_steps_ends_with_the_same_losses_and_weights(
    demo_model: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = SHORT | {"lora_dropout": 0.1, "eval_steps": 2, "logging_steps": 1}
    whole = make_run(tmp_path / "whole", demo_model, **settings)
    assert whole.finish()[0] == 0
    killed = make_run(tmp_path / "killed", demo_model, **settings)
    for step in sorted(random.Random(time.time_ns()).sample(range(2, 12), 3)):
        process = killed.start()
        wait_for(killed, process, "step", step)
        process.kill()
        process.communicate()
        assert list(killed.output_dir.parent.iterdir()) == []
    assert killed.finish()[0] == 0
    assert losses(killed) == losses(whole)
    found = weights(killed)
    for name, values in weights(whole).items():
        assert torch.equal(found[name], values), name


def test_a_run_does_not_go_on_with_other_examples(demo_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    lines = [f'{{"prompt": "Say {count}.", "completion": " {count}"}}\n' for count in range(40)]
    data.write_text("".join(lines))
    run = make_run(tmp_path, demo_model, training_file=str(data), validation_file=None, n_epochs=1000, save_steps=3)
    process = run.start()
    wait_for(run, process, "checkpoint", 3)
    process.kill()
    process.communicate()
    data.write_text("".join(lines[:20]))
    code, _, err = run.finish()
    assert code == 2
    assert "has changed since this run started" in err
    assert (run.failure.code, run.failure.param) == ("invalid_config", "training_file")


def test_a_half_written_checkpoint_is_passed_over(demo_model: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, demo_model, **SHORT)
    half = run.directory / "checkpoints" / "checkpoint-9"
    half.mkdir(parents=True)
    (half / "trainer_state.json").write_text('{"global_step": 9, "lo')
    assert run.finish()[0] == 0
    assert not any("resuming from" in event.message for event in run.events)


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_run_cleanly_with_a_checkpoint(
    demo_model: Path, tmp_path: Path, signum: signal.Signals, exit_code: int
) -> None:
    run = make_run(tmp_path, demo_model, n_epochs=1000, save_steps=3)
    process = run.start()
    wait_for(run, process, "checkpoint", 3)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert "Traceback" not in err
    assert run.failure.code == "interrupted"
    assert run.events[-2].type == "checkpoint"
    assert list(run.output_dir.parent.iterdir()) == []


def test_the_weights_of_the_best_validation_are_kept_and_the_run_ends_early(demo_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(f'{{"prompt": "Say {word}.", "completion": " {word}"}}\n' for word in ("tea", "sea", "bee"))
    )
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text('{"prompt": "Name the capital.", "completion": " Paris, of course, my friend."}\n')
    run = make_run(
        tmp_path, demo_model, training_file=str(data), validation_file=str(held_out), n_epochs=200, batch_size=1,
        learning_rate=5e-3, eval_steps=2, early_stopping_patience=3, max_steps=None,
    )  # fmt: skip
    assert run.finish()[0] == 0
    told = {event.step: event.valid_loss for event in run.events if event.type == "validation" and event.step}
    best = min(told, key=lambda step: told[step] or 0)
    last = max(told)
    assert list(told)[-4:] == [best, best + 2, best + 4, last] == [best, best + 2, best + 4, best + 6]
    assert run.events[-1].details["metrics"]["valid_loss"] == pytest.approx(told[best])
    messages = " ".join(event.message for event in run.events)
    assert f"stopped early after step {last}" in messages
    assert f"kept the weights of step {best}" in messages


def limit_memory_once_loaded(run: Run, process: subprocess.Popen[str], spare_bytes: int) -> None:
    """Leaves the process `spare_bytes` of address space beyond what it has when its first validation is told."""
    wait_for(run, process, "validation", 0)
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + spare_bytes
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))


def long_examples(path: Path) -> Path:
    line = '{"prompt": "Count.", "completion": "' + "one two three four five six " * 150 + '"}\n'
    path.write_text(line * 64)
    return path


def test_a_run_that_is_out_of_memory_goes_on_with_a_smaller_batch(
    demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is limited is address space, and glibc keeps that of its heap even where it has given the memory back.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**20))
    data = long_examples(tmp_path / "long.jsonl")
    short = tmp_path / "short.jsonl"
    short.write_text('{"prompt": "Hi", "completion": " there"}\n')
    run = make_run(
        tmp_path, demo_model, training_file=str(data), validation_file=str(short), batch_size=64, max_length=384,
        n_epochs=1, max_steps=1,
    )  # fmt: skip
    process = run.start()
    limit_memory_once_loaded(run, process, 400_000_000)
    _, err = process.communicate(timeout=400)
    shrink_batch: list[ProgressEvent] = [event for event in run.events if event.code == "out_of_memory"]
    assert process.returncode == 0, err
    assert shrink_batch
    assert "batch_size 64: continuing with 32 and 2 accumulation steps" in shrink_batch[0].message
    assert run.events[-1].type == "finished"
    assert run.events[-1].step == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("unable to mmap 11547624 bytes from file <x>: Cannot allocate memory (12)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_base_that_does_not_fit_into_memory_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(config: TrainingConfig) -> None:
        raise error

    monkeypatch.setattr("training.run.run.load_base", fail)
    config = TrainingConfig(base_model="org/base", training_file="x", output_dir=str(tmp_path / "out"))
    with EventWriter(tmp_path) as events, pytest.raises(OutOfMemoryError, match="isn't enough memory to load org/base"):
        run_training(RunInputs(config, [], []), tmp_path, Journal(tmp_path, events), StopRequest())


def test_memory_that_runs_out_while_weights_are_quantized_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 130.00 MiB.")

    monkeypatch.setattr(Bnb4bitQuantize, "convert", fail)
    base = make_tiny_model(tmp_path / "base")
    config = TrainingConfig(base_model=str(base), training_file="x", output_dir=str(tmp_path / "out"))
    with EventWriter(tmp_path) as events, pytest.raises(OutOfMemoryError, match="isn't enough memory to load"):
        run_training(RunInputs(config, [], []), tmp_path, Journal(tmp_path, events), StopRequest())


@pytest.mark.parametrize("packing", [False, True])
def test_tokens_are_counted_without_padding(demo_model: Path, tmp_path: Path, packing: bool) -> None:
    data = tmp_path / "data.jsonl"
    lines = [f'{{"prompt": "Say it.", "completion": "{" tea" * count}"}}' for count in (1, 5, 9, 2)]
    data.write_text("\n".join(lines))
    run = make_run(
        tmp_path, demo_model, training_file=str(data), validation_file=None, validation_fraction=0, n_epochs=2,
        batch_size=4, packing=packing,
    )  # fmt: skip
    assert run.finish()[0] == 0
    counted = next(event.message for event in run.events if "tokens to train on" in event.message)
    tokens = int(counted.split(" tokens")[0].split()[-1])
    assert run.events[-1].details["metrics"]["trained_tokens"] == 2 * tokens


def test_a_run_killed_after_its_last_checkpoint_does_not_train_another_step(demo_model: Path, tmp_path: Path) -> None:
    """In the middle of an epoch, at a rate that is not yet zero: one step more would be another adapter."""
    settings = SHORT | {"max_steps": 6, "lr_scheduler_type": "constant", "validation_fraction": 0.0}
    whole = make_run(tmp_path / "whole", demo_model, **settings)
    assert whole.finish()[0] == 0
    killed = make_run(tmp_path / "killed", demo_model, **settings)
    assert killed.finish()[0] == 0
    expected = weights(killed)
    # As if it had been killed between its last checkpoint and its result.
    shutil.rmtree(killed.output_dir)
    assert killed.finish()[0] == 0
    assert [event.step for event in killed.events if event.type == "step"] == list(range(1, 7))
    assert killed.events[-1].details["metrics"]["train_loss"] == whole.events[-1].details["metrics"]["train_loss"]
    assert (
        killed.events[-1].details["metrics"]["trained_tokens"] == whole.events[-1].details["metrics"]["trained_tokens"]
    )
    for name, values in weights(whole).items():
        assert torch.equal(values, expected[name])
        assert torch.equal(values, weights(killed)[name])
