"""Real runs that go wrong, each in its own way, and one that goes well: what is read from the events they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import Run, make_run
from training.config.config import TrainingConfig
from training.demo.examples import EXAMPLES
from training.record.health.diagnose import Finding, diagnose

RUNS: dict[str, dict[str, Any]] = {
    "diverging": {"learning_rate": 3.0, "max_steps": 16},
    "learning nothing": {"learning_rate": 1e-8, "max_steps": 24},
    "overfitting": {"training_file": "{few}", "n_epochs": 24, "batch_size": 6, "learning_rate": 1e-2, "eval_steps": 8},
    "good": {"max_steps": 40},
}
FEW = 12
"""Examples of the overfitting run; it's measured on all that the demo holds out."""


@pytest.fixture(scope="module")
def runs(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The runs, ended; they run side by side, as most of their time is spent loading libraries."""
    place = tmp_path_factory.mktemp("health")
    few = place / "few.jsonl"
    few.write_text("".join(EXAMPLES.read_text(encoding="utf-8").splitlines(keepends=True)[:FEW]))
    runs = {}
    for name, changes in RUNS.items():
        values = {key: str(few) if value == "{few}" else value for key, value in changes.items()}
        runs[name] = make_run(place / name.replace(" ", "-"), demo_model, **values)
    processes = [run.start() for run in runs.values()]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode in (0, 1), err
    return runs


@pytest.fixture(scope="module")
def findings(runs: dict[str, Run]) -> dict[str, list[Finding]]:
    """What is said of each run."""
    return {name: of(run) for name, run in runs.items()}


def of(run: Run) -> list[Finding]:
    config = TrainingConfig.from_dict(json.loads((run.directory / "config.json").read_text()))
    return diagnose(run.events, config)


def test_a_diverging_run_is_told_to_lower_its_learning_rate(findings: dict[str, list[Finding]]) -> None:
    first = findings["diverging"][0]
    assert first.code in ("divergence", "not_finite")
    assert first.severity in ("warning", "error")
    assert first.step < 12
    assert "`learning_rate` is 3; try 0.02" in first.remedy


def test_a_run_that_learns_nothing_is_told_to_raise_its_learning_rate(findings: dict[str, list[Finding]]) -> None:
    (found,) = findings["learning nothing"]
    assert found.code == "nothing_learned"
    assert found.step < 20
    assert "`learning_rate` is 1e-8; try 2e-4" in found.remedy


def test_an_overfitting_run_is_told_its_best_step_and_to_train_less(
    runs: dict[str, Run], findings: dict[str, list[Finding]]
) -> None:
    measured = {event.step: event.valid_loss for event in runs["overfitting"].events if event.type == "validation"}
    best = min(measured, key=lambda step: measured[step] or 0)
    found = [finding for finding in findings["overfitting"] if finding.severity != "info"]
    assert [finding.code for finding in found] == ["overfitting"]
    assert 0 < best < max(measured)
    assert f"was at step {best}" in found[0].message
    assert "n_epochs" in found[0].remedy


def test_a_good_run_gets_no_warning(findings: dict[str, list[Finding]]) -> None:
    assert [finding for finding in findings["good"] if finding.severity != "info"] == []
