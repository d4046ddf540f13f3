"""`tuneloop runs`: what people and programs read of runs of every fate."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from server.cli.commands.runs import app, sparkline
from training.config.config import ConfigError, TrainingConfig
from training.record.progress import EventWriter, ProgressEvent
from training.record.record import finish_record, write_record


def tell(data_dir: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--data-dir", str(data_dir)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0
    return done.stdout


def make(data_dir: Path, name: str, losses: list[float], *, end: str = "", valid: bool = True, **values: Any) -> Path:
    run_dir = data_dir / "runs" / name
    run_dir.mkdir(parents=True)
    examples = data_dir / "examples.jsonl"
    examples.write_text("{}\n")
    settings = {"base_model": "org/base", "training_file": str(examples), "output_dir": f"{run_dir}/out"}
    config = TrainingConfig.from_dict(settings | {"fine_tuned_model": f"ft:base:a:{name}:abcd1234"} | values)
    (run_dir / "config.json").write_text(config.to_json())
    write_record(run_dir, config)
    with EventWriter(run_dir) as events:
        events.write(ProgressEvent("started", created_at=1000))
        total = len(losses)
        if valid:
            events.write(ProgressEvent("validation", step=0, total_steps=total, valid_loss=losses[0], created_at=1001))
        for step, loss in enumerate(losses, start=1):
            events.write(
                ProgressEvent(
                    "step", step=step, total_steps=total, train_loss=loss, created_at=1001 + step, remaining_s=90
                )
            )
        if valid and end == "finished":
            last = ProgressEvent("validation", step=total, total_steps=total, valid_loss=losses[-1], created_at=1040)
            events.write(last)
        if end == "finished":
            events.write(ProgressEvent("finished", step=total, total_steps=total, created_at=1050))
        elif end:
            events.write(ProgressEvent("failed", f"it ended with {end}", code=end, created_at=1050))
    if end:
        finish_record(run_dir)
    return run_dir


FALLING = [2.5 - 0.05 * step for step in range(30)]
RISING = [2.0] * 10 + [9.0] * 20


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    make(tmp_path, "run-good", FALLING, end="finished", learning_rate=1e-4)
    make(tmp_path, "run-bad", RISING, end="finished", learning_rate=5e-3)
    make(tmp_path, "run-broken", FALLING[:5], end="internal_error")
    make(tmp_path, "run-now", FALLING[:12])
    return tmp_path


def test_list_shows_each_run_with_its_fate(data_dir: Path) -> None:
    lines = {line.split("│")[1].strip(): line for line in tell(data_dir, "list").splitlines() if "│" in line}
    assert lines.keys() == {"run-good", "run-bad", "run-broken", "run-now"}
    for name, status in (("good", "succeeded"), ("bad", "succeeded"), ("broken", "failed"), ("now", "running")):
        assert status in lines[f"run-{name}"]
    assert "2.500 → 1.050" in lines["run-good"]
    assert "30/30" in lines["run-good"]
    assert "50 s" in lines["run-good"]
    assert "org/base" in lines["run-good"]
    assert "ft:base:a:run-good:abcd1234" in lines["run-good"]


def test_without_runs_it_is_said_how_to_start_one(tmp_path: Path) -> None:
    assert "tuneloop train" in tell(tmp_path, "list")
    assert json.loads(tell(tmp_path, "list", "--json")) == []


def test_list_as_json_has_everything_for_programs(data_dir: Path) -> None:
    runs = {run["id"]: run for run in json.loads(tell(data_dir, "list", "--json"))}
    good = runs["run-good"]
    assert (good["status"], good["steps"], good["total_steps"], good["seconds"]) == ("succeeded", 30, 30, 50)
    assert good["metrics"]["valid_loss_before"] == 2.5
    assert good["config"]["learning_rate"] == 1e-4
    assert "divergence" in {finding["code"] for finding in runs["run-bad"]["findings"]}


def test_show_has_settings_data_metrics_and_findings(data_dir: Path) -> None:
    shown = tell(data_dir, "show", "run-bad")
    assert "succeeded" in shown
    assert "learning_rate  0.005" in shown
    assert "warmup_ratio" not in shown.split("Findings")[0]
    assert "sha256 " in shown
    assert "valid_loss_before" in shown
    assert "error divergence, step" in shown
    assert "`learning_rate` is 5e-3; try 5e-4" in " ".join(shown.split())
    assert "▁" in shown
    assert "█" in shown


def test_show_of_a_good_run_says_that_there_is_nothing_to_worry_about(data_dir: Path) -> None:
    assert "No problems found." in tell(data_dir, "show", "run-good")


def test_show_names_the_picture_once_there_is_one(data_dir: Path) -> None:
    picture = data_dir / "runs" / "run-good" / "curves.png"
    assert str(picture) not in tell(data_dir, "show", "run-good")
    picture.write_bytes(b"")
    assert str(picture) in tell(data_dir, "show", "run-good")


def test_show_of_a_failed_run_tells_why(data_dir: Path) -> None:
    assert "it ended with internal_error" in tell(data_dir, "show", "run-broken")


def test_show_of_a_running_run_tells_how_much_is_left(data_dir: Path) -> None:
    shown = tell(data_dir, "show", "run-now")
    assert "running" in shown
    assert "about 90 s" in shown


@pytest.mark.parametrize("name", ["run-go", "{folder}"])
def test_a_run_is_found_by_the_start_of_its_name_and_by_its_folder(data_dir: Path, name: str) -> None:
    assert "run-good" in tell(data_dir, "show", name.format(folder=data_dir / "runs" / "run-good"))


def test_latest_is_the_first_of_the_list(data_dir: Path) -> None:
    newest = json.loads(tell(data_dir, "list", "--json"))[0]["id"]
    assert tell(data_dir, "show", "latest").startswith(newest)


@pytest.mark.parametrize(
    ("name", "said"), [("run-godo", "Did you mean run-good"), ("xyz", "tuneloop runs list"), ("run-b", "2 runs start")]
)
def test_an_unknown_run_is_refused_with_the_nearest_name(data_dir: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tell(data_dir, "show", name)


def test_compare_shows_what_differs_and_marks_the_best(data_dir: Path) -> None:
    lines = tell(data_dir, "compare", "run-good", "run-bad").splitlines()
    (rate,) = [line for line in lines if "learning_rate" in line]
    (loss,) = [line for line in lines if "│ valid_loss " in line]
    assert "0.0001" in rate
    assert "0.005" in rate
    assert "1.05 *" in loss
    assert "9 *" not in loss
    assert not any("lora_alpha" in line or "output_dir" in line for line in lines)


def test_compare_as_json_gives_the_place_of_the_best(data_dir: Path) -> None:
    compared = json.loads(tell(data_dir, "compare", "run-bad", "run-good", "--json"))
    assert compared["runs"] == ["run-bad", "run-good"]
    assert compared["settings"] == {"learning_rate": [5e-3, 1e-4]}
    assert compared["metrics"]["valid_loss"] == [9.0, pytest.approx(1.05)]
    assert compared["best"]["valid_loss"] == [1]
    assert "train_loss" not in compared["best"]


def test_compare_marks_no_best_among_losses_of_different_examples(data_dir: Path) -> None:
    make(data_dir, "run-other", FALLING, end="finished", validation_file="other.jsonl")
    told = tell(data_dir, "compare", "run-good", "run-other")
    assert "can't be compared" in told
    assert "*" not in told


def test_compare_of_one_run_is_refused(data_dir: Path) -> None:
    with pytest.raises(ConfigError, match="two or more"):
        tell(data_dir, "compare", "run-good")


def test_a_run_whose_process_is_gone_can_be_resumed(data_dir: Path) -> None:
    record = data_dir / "runs" / "run-now" / "record.json"
    values = json.loads(record.read_text())
    values["process"] = {"pid": os.getpid(), "started": "0"}
    record.write_text(json.dumps(values))
    assert "last checkpoint" in tell(data_dir, "show", "run-now")


def test_a_sparkline_follows_its_values_within_sixty_bars() -> None:
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert len(sparkline([float(value) for value in range(1000)])) == 60
