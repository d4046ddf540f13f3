"""What TensorBoard and Weights & Biases get to see of a run, read back from what was written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.config.config import ConfigError, TrainingConfig
from training.record.progress import ProgressEvent
from training.record.tracking import Tracking


def config(**values: Any) -> TrainingConfig:
    return TrainingConfig(base_model="base", training_file="file", output_dir="out", **values)


def step(number: int, loss: float) -> ProgressEvent:
    return ProgressEvent("step", step=number, total_steps=4, train_loss=loss, grad_norm=0.5, learning_rate=1e-4)


def validation(number: int, loss: float) -> ProgressEvent:
    return ProgressEvent("validation", step=number, valid_loss=loss, valid_mean_token_accuracy=0.25)


def scalars(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    read = EventAccumulator(str(run_dir / "tensorboard"))
    read.Reload()
    return [(event.step, round(event.value, 5)) for event in read.Scalars(tag)]


def test_tensorboard_gets_every_figure_at_its_step(tmp_path: Path) -> None:
    with Tracking(tmp_path, config()) as tracking:
        for event in (ProgressEvent("started"), validation(0, 3.0), step(1, 2.5), step(2, 2.0), validation(2, 2.2)):
            tracking(event)
    assert scalars(tmp_path, "train/loss") == [(1, 2.5), (2, 2.0)]
    assert scalars(tmp_path, "train/learning_rate") == [(1, 1e-4), (2, 1e-4)]
    assert scalars(tmp_path, "train/grad_norm") == [(1, 0.5), (2, 0.5)]
    assert scalars(tmp_path, "valid/loss") == [(0, 3.0), (2, 2.2)]
    assert scalars(tmp_path, "valid/mean_token_accuracy") == [(0, 0.25), (2, 0.25)]


def test_a_resumed_run_goes_on_in_tensorboard_and_replaces_what_it_repeats(tmp_path: Path) -> None:
    with Tracking(tmp_path, config()) as tracking:
        for event in (validation(0, 3.0), step(1, 2.5), step(2, 2.0), step(3, 9.0)):
            tracking(event)
    with Tracking(tmp_path, config()) as tracking:
        for event in (validation(0, 3.0), step(2, 1.9), step(3, 1.5), step(4, 1.2)):
            tracking(event)
    assert scalars(tmp_path, "train/loss") == [(1, 2.5), (2, 1.9), (3, 1.5), (4, 1.2)]
    assert scalars(tmp_path, "valid/loss") == [(0, 3.0)]


OFFLINE = """
import sys
from pathlib import Path
from training.config.config import TrainingConfig
from training.record.progress import ProgressEvent
from training.record.tracking import Tracking

config = TrainingConfig(base_model="b", training_file="f", output_dir="o", wandb_project="demo", wandb_mode="offline")
with Tracking(Path(sys.argv[1]), config) as tracking:
    tracking(ProgressEvent("step", step=1, train_loss=2.0))
"""


def test_wandb_offline_leaves_its_report_in_the_run_directory(tmp_path: Path) -> None:
    run_dir = tmp_path / "run-1"
    run_dir.mkdir()
    done = subprocess.run([sys.executable, "-c", OFFLINE, str(run_dir)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    (report,) = (run_dir / "wandb").glob("offline-run-*/run-run-1.wandb")
    content = report.read_bytes()
    assert b"train/loss" in content
    assert b"optimizer_step" in content
    assert b"wandb_project" in content


def test_wandb_without_a_key_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_IDENTITY_TOKEN_FILE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="wandb login") as caught, Tracking(tmp_path, config(wandb_project="demo")):
        pass
    assert caught.value.param == "wandb_project"
    assert "offline" in str(caught.value)


def test_wandb_that_is_not_installed_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'tuneloop\[wandb\]'"),
        Tracking(tmp_path, config(wandb_project="demo", wandb_mode="offline")),
    ):
        pass


def test_wandb_that_fails_later_is_told_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    told: list[str] = []
    settings = config(wandb_project="demo", wandb_mode="offline")
    with Tracking(tmp_path, settings, told.append) as tracking:
        tracking(step(1, 2.5))
        assert wandb.run is not None
        wandb.run.finish()  # as if it had gone away: from now on every call to it raises
        tracking(step(2, 2.0))
        tracking(step(3, 1.5))
    assert len(told) == 1
    assert "continues" in told[0]
    assert scalars(tmp_path, "train/loss") == [(1, 2.5), (2, 2.0), (3, 1.5)]
