"""What a run leaves behind to be read later, and how runs of every fate are read back."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training.config.auto import Plan
from training.config.config import TrainingConfig
from training.record.progress import EVENTS_FILE, EventWriter, ProgressEvent
from training.record.record import finish_record, read_run, read_runs, write_metrics, write_record

PLAN = Plan(
    n_epochs=3, batch_size=8, gradient_accumulation_steps=1, learning_rate=2e-4, steps_per_epoch=4, total_steps=12,
    warmup_steps=1, eval_steps=3, save_steps=4, reasons=("n_epochs 3: few examples",),
)  # fmt: skip


def configured(run_dir: Path, **values: Any) -> TrainingConfig:
    run_dir.mkdir(parents=True, exist_ok=True)
    data = run_dir / "examples.jsonl"
    data.write_text('{"text": "a"}\n')
    settings = {"base_model": "org/base", "training_file": str(data), "output_dir": str(run_dir / "out")}
    config = TrainingConfig.from_dict(settings | values)
    (run_dir / "config.json").write_text(config.to_json())
    return config


def step(number: int, loss: float, at: float, **values: Any) -> ProgressEvent:
    return ProgressEvent("step", step=number, total_steps=4, train_loss=loss, created_at=at, **values)


def write(run_dir: Path, *events: ProgressEvent) -> None:
    with EventWriter(run_dir) as writer:
        for event in events:
            writer.write(event)


DONE = (
    ProgressEvent("started", created_at=100),
    ProgressEvent("validation", step=0, total_steps=4, valid_loss=2.5, created_at=101),
    step(1, 2.4, 102, train_mean_token_accuracy=0.5),
    step(2, 1.9, 103),
    ProgressEvent("failed", code="interrupted", message="stopped by SIGTERM", created_at=104),
    ProgressEvent("started", created_at=1000),
    ProgressEvent("validation", step=0, total_steps=4, valid_loss=2.5, created_at=1001),
    step(2, 1.8, 1002),
    step(3, 1.5, 1003),
    step(4, 1.2, 1004),
    ProgressEvent("validation", step=4, total_steps=4, valid_loss=1.4, created_at=1005),
    ProgressEvent(
        "finished", step=4, total_steps=4, created_at=1006,
        details={"fine_tuned_model": "ft:base:me::abcd1234", "metrics": {"train_loss": 1.2, "trained_tokens": 99}},
    ),
)  # fmt: skip


def test_a_record_tells_what_the_run_was_made_from(tmp_path: Path) -> None:
    config = configured(tmp_path, seed=7)
    path = write_record(tmp_path, config, PLAN, base_model_sha256="ab" * 32, gpu="NVIDIA H100")
    record = json.loads(path.read_text())
    assert TrainingConfig.from_dict(record["config"]) == config
    assert (record["plan"]["learning_rate"], record["plan"]["reasons"]) == (2e-4, list(PLAN.reasons))
    assert record["data"]["training_file"] == {
        "path": config.training_file,
        "sha256": hashlib.sha256(b'{"text": "a"}\n').hexdigest(),
        "bytes": 14,
    }
    assert record["base_model"] == {"name": "org/base", "sha256": "ab" * 32}
    assert record["versions"].keys() >= {"python", "torch", "transformers", "peft", "trl"}
    assert record["machine"]["gpu"] == "NVIDIA H100"
    assert record["machine"]["cores"] == os.cpu_count()
    assert record["machine"]["memory_bytes"] > 10**8
    assert (record["seed"], record["status"]) == (7, "running")


def test_a_finished_record_tells_what_came_of_it_over_all_resumes(tmp_path: Path) -> None:
    config = configured(tmp_path)
    write_record(tmp_path, config, PLAN)
    write(tmp_path, *DONE)
    record = finish_record(tmp_path)
    assert record == json.loads((tmp_path / "record.json").read_text())
    assert record["status"] == "succeeded"
    assert record["times"] == {"started_at": 100, "finished_at": 1006, "seconds": 10}
    assert record["metrics"]["valid_loss_before"] == 2.5
    assert record["metrics"]["trained_tokens"] == 99
    assert record["findings"] == []
    assert record["data"]["training_file"]["bytes"] == 14


def test_a_resumed_run_is_recorded_as_running_again(tmp_path: Path) -> None:
    config = configured(tmp_path)
    write(tmp_path, *DONE[:5])
    write_record(tmp_path, config)
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["status"], record["message"]) == ("running", "")
    assert record["times"]["started_at"] == 100
    assert record["times"]["finished_at"] is None


def test_the_metrics_table_has_the_columns_of_openai_and_each_step_once(tmp_path: Path) -> None:
    write(tmp_path, *DONE)
    text = write_metrics(tmp_path).read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert text.splitlines()[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["train_loss"] for row in rows] == ["", "2.4", "1.8", "1.5", "1.2"]
    assert (rows[1]["train_accuracy"], rows[4]["valid_loss"]) == ("0.5", "1.4")


def test_findings_are_recorded_with_their_remedy(tmp_path: Path) -> None:
    config = configured(tmp_path, learning_rate=3.0)
    write_record(tmp_path, config)
    losses = [2.0] * 10 + [9.0] * 10
    write(tmp_path, *(step(number, loss, number) for number, loss in enumerate(losses, start=1)))
    (finding,) = finish_record(tmp_path)["findings"]
    assert finding["code"] == "divergence"
    assert "try 0.02" in finding["remedy"]


@pytest.mark.parametrize(
    ("events", "status", "message"),
    [
        ((), "waiting", ""),
        (DONE, "succeeded", ""),
        ((*DONE, ProgressEvent("failed", "it exists", code="output_exists")), "succeeded", ""),
        (DONE[:5], "interrupted", "SIGTERM"),
        (DONE[:8], "interrupted", "killed"),
        ((*DONE[:3], ProgressEvent("failed", "no memory", code="internal_error")), "failed", "no memory"),
        ((ProgressEvent("started", created_at=4e9),), "running", ""),  # just now, whenever the test runs
    ],
)
def test_the_status_is_what_the_events_tell(
    tmp_path: Path, events: tuple[ProgressEvent, ...], status: str, message: str
) -> None:
    configured(tmp_path)
    write(tmp_path, *events)
    run = read_run(tmp_path)
    assert run is not None
    assert run.status == status
    assert message in run.message


def test_a_run_goes_on_as_long_as_its_process_lives(tmp_path: Path) -> None:
    config = configured(tmp_path)
    command = (
        "import sys, json; from pathlib import Path; from training.config.config import TrainingConfig;"
        "from training.record.record import write_record; run_dir = Path(sys.argv[1]);"
        "write_record(run_dir, TrainingConfig.from_dict(json.loads((run_dir / 'config.json').read_text())));"
        "print('written', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", command, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"written\n"
        write(tmp_path, *DONE[:3])
        alive = read_run(tmp_path)
        other.communicate(b"")
    dead = read_run(tmp_path)
    assert alive is not None
    assert dead is not None
    assert (alive.status, dead.status) == ("running", "interrupted")
    assert config.base_model == alive.config["base_model"]


def test_a_process_number_that_was_used_anew_is_not_taken_for_the_run(tmp_path: Path) -> None:
    configured(tmp_path)
    write(tmp_path, *DONE[:3])
    (tmp_path / "record.json").write_text(json.dumps({"process": {"pid": os.getpid(), "started": "1"}}))
    run = read_run(tmp_path)
    assert run is not None
    assert run.status == "interrupted"


def test_runs_are_read_newest_first_whatever_else_lies_there(tmp_path: Path) -> None:
    for name, begun in (("old", 100.0), ("new", 200.0)):
        configured(tmp_path / name)
        write(tmp_path / name, ProgressEvent("started", created_at=begun), step(1, 2.0, begun + 1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").write_text("x")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text('{"base_mod')
    (tmp_path / "torn" / "record.json").write_text("[1]")
    (tmp_path / "torn" / EVENTS_FILE).write_bytes(b'{"type": "started", "created_at": 50}\nnonsense\n{"type": "st')
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "config.json").write_text('{"base_model": "b", "a_later_setting": 1}')
    (tmp_path / "later" / EVENTS_FILE).write_text('{"type": "started", "created_at": 10, "later": 1}\n')
    assert [run.id for run in read_runs(tmp_path)] == ["new", "old", "torn", "later"]
    assert read_runs(tmp_path / "absent") == []
    later = read_runs(tmp_path)[-1]
    assert (later.base_model, later.method, later.config["a_later_setting"]) == ("b", "supervised", 1)


def test_a_summary_tells_steps_losses_time_and_name(tmp_path: Path) -> None:
    configured(tmp_path)
    write(tmp_path, *DONE)
    run = read_run(tmp_path)
    assert run is not None
    assert run.steps == (4, 4)
    assert run.loss == ("valid_loss", 2.5, 1.4)
    assert (run.seconds, run.created_at) == (10, 100)
    assert run.fine_tuned_model == "ft:base:me::abcd1234"


def test_without_validation_the_loss_is_the_training_loss(tmp_path: Path) -> None:
    configured(tmp_path)
    write(tmp_path, step(1, 2.4, 1), step(2, 2.0, 2))
    run = read_run(tmp_path)
    assert run is not None
    assert run.loss == ("train_loss", 2.4, 2.0)
