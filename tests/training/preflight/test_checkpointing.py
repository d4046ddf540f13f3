"""`gradient_checkpointing: auto`: on where a run wouldn't fit without, the same when a run goes on, the same result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.gpu.bases import write_base
from tests.training.runs import Run, make_run
from training.config.config import TrainingConfig
from training.data.inputs import read_inputs
from training.learning.objective import Objective, make_objective
from training.learning.trainer import TokenTrainer
from training.preflight.memory import estimate_memory
from training.preflight.model_shape import ModelShape
from training.preflight.planning import plan_run
from training.process.memory import OutOfMemoryError
from training.process.stopping import StopRequest
from training.record.journal import Journal
from training.record.progress import EventWriter
from training.run.run import run as run_training

GB = 10**9
Train = Callable[[Run, int], bool]
SHORT = {"max_steps": 2, "save_steps": 1, "batch_size": 1, "validation_file": None, "validation_fraction": 0.0}


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trains a run where so many bytes are free; whether its layers compute their activations twice."""
    made: list[Any] = []

    def make(*arguments: Any) -> Objective:
        made.append(make_objective(*arguments))
        return made[-1]

    def train_where(run: Run, free_bytes: int) -> bool:
        monkeypatch.setattr("training.run.run.free_memory", lambda on_gpu: free_bytes)
        config = TrainingConfig.from_dict(json.loads((run.directory / "config.json").read_text()))
        with EventWriter(run.directory) as events:
            journal = Journal(run.directory, events)
            journal.start(config)
            run_training(read_inputs(config), run.directory, journal, StopRequest())
        return bool(made[-1].trainer.model.is_gradient_checkpointing)

    monkeypatch.setattr("training.run.run.make_objective", make)
    return train_where


def noted(run: Run) -> list[Any]:
    """What the plan and the record say of the choice, and the configuration, which keeps `auto`."""
    plan, record = (json.loads((run.directory / name).read_text()) for name in ("plan.json", "record.json"))
    chosen = [of["plan"]["gradient_checkpointing"] for of in (plan, record)]
    return [*chosen, record["config"]["gradient_checkpointing"]]


def just_too_little(base: Path, longest: int) -> int:
    """Bytes in which one row doesn't fit unless its activations are computed twice."""
    config = TrainingConfig(base_model=str(base), training_file="x", output_dir="y")
    return estimate_memory(ModelShape.from_folder(base), config, 1, longest, False).total - 1


def test_a_run_that_needs_it_turns_it_on_goes_on_with_it_and_learns_the_same(
    demo_model: Path, tmp_path: Path, train: Train
) -> None:
    data = tmp_path / "long.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{n}", "completion": " tea" * 150}) + "\n" for n in range(4)))
    tight, roomy = (make_run(tmp_path / name, demo_model, training_file=str(data), **SHORT) for name in ("t", "r"))
    assert train(roomy, 64 * GB) is False
    assert noted(roomy) == [False, False, "auto"]
    counted = next(event.message for event in roomy.events if "tokens to train on" in event.message)
    n_tokens = int(counted.split(" tokens")[0].split()[-1])
    assert train(tight, just_too_little(demo_model, n_tokens // 4)) is True
    assert noted(tight) == [True, True, "auto"]
    assert any(event.message.startswith("`gradient_checkpointing` true: without it") for event in tight.events)
    learned = [load_file(run.output_dir / "adapter_model.safetensors") for run in (tight, roomy)]
    for name, values in learned[1].items():
        torch.testing.assert_close(learned[0][name], values, rtol=1e-3, atol=1e-5)
    # Taken up again where there is room by now: as if it had been killed between its first checkpoint and its second.
    shutil.rmtree(tight.output_dir)
    shutil.rmtree(tight.directory / "checkpoints" / "checkpoint-2")
    assert train(tight, 64 * GB) is True
    assert noted(tight) == [True, True, "auto"]
    again = load_file(tight.output_dir / "adapter_model.safetensors")
    assert all(torch.equal(values, again[name]) for name, values in learned[0].items())


@pytest.mark.parametrize("asked", ["auto", False])
def test_where_memory_runs_out_with_the_fewest_rows_it_is_turned_on_if_that_is_left_open(
    demo_model: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch, asked: str | bool
) -> None:
    compute_loss = TokenTrainer.compute_loss

    def run_out(trainer: TokenTrainer, *arguments: Any, **named: Any) -> torch.Tensor:
        if not trainer.args.gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute_loss(trainer, *arguments, **named)

    monkeypatch.setattr(TokenTrainer, "compute_loss", run_out)
    run = make_run(tmp_path, demo_model, gradient_checkpointing=asked, **SHORT | {"batch_size": 2})
    if asked is False:
        with pytest.raises(OutOfMemoryError, match="Set `gradient_checkpointing` to true, lower `max_length`"):
            train(run, 64 * GB)
        return
    assert train(run, 64 * GB) is True
    told = [event.message for event in run.events if event.code == "out_of_memory"]
    assert ["continuing with 1 and 2" in told[0], "continuing with gradient_checkpointing" in told[1]] == [True, True]
    assert noted(run) == [True, True, "auto"]


@pytest.mark.parametrize(
    ("base", "gigabytes", "longest", "settings", "chosen"),
    [
        ("Qwen2.5-7B-Instruct", 24, 2048, {}, (True, 2)),
        ("Qwen2.5-7B-Instruct", 24, 256, {}, (False, 2)),  # the examples are short: no need
        ("Qwen2.5-7B-Instruct", 80, 2048, {}, (False, 2)),
        ("Qwen2.5-7B-Instruct", 80, 2048, {"batch_size": 8}, (True, 8)),  # what is asked for is never changed
        ("Qwen2.5-7B-Instruct", 80, 2048, {"max_memory_gb": 20.0}, (True, 2)),
        ("Qwen2.5-7B-Instruct", 24, 2048, {"gradient_checkpointing": False}, (False, 1)),
        ("Qwen2.5-7B-Instruct", 80, 256, {"gradient_checkpointing": True}, (True, 16)),
        ("Qwen2.5-3B-Instruct", 24, 2048, {}, (True, 4)),
        ("Qwen2.5-1.5B-Instruct", 16, 2048, {}, (True, 4)),
        ("Qwen2.5-0.5B-Instruct", 16, 2048, {}, (False, 1)),
        ("Qwen2.5-7B-Instruct", 24, 2048, {"finetuning_type": "prefix_tuning", "serve_as": "none"}, (False, 1)),
        ("Qwen2.5-7B-Instruct", None, 2048, {}, (False, 4)),
    ],
)
def test_a_smaller_batch_comes_before_computing_twice(
    tmp_path: Path, base: str, gigabytes: int | None, longest: int, settings: dict[str, Any], chosen: tuple[bool, int]
) -> None:
    shape = ModelShape.from_folder(write_base(tmp_path, base))
    config = TrainingConfig(base_model=str(tmp_path), training_file="x", output_dir="y", **settings)
    plan, decided = plan_run(
        config, shape, n_rows=1000, mean_tokens=longest, longest_tokens=longest, n_parameters=shape.n_parameters,
        on_gpu=True, free_bytes=gigabytes and gigabytes * GB,
    )  # fmt: skip
    assert (plan.gradient_checkpointing, plan.batch_size) == chosen
    assert decided.gradient_checkpointing is plan.gradient_checkpointing
    told = [reason for reason in plan.reasons if reason.startswith("`gradient_checkpointing` ")]
    assert len(told) == ("gradient_checkpointing" not in settings)
