"""Compares runs: the settings that differ, and which run did best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from training.record.record import RunSummary

NEVER_COMPARED = ("output_dir", "fine_tuned_model")
"""These differ in every run."""


def settings_that_differ(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """Return each setting that differs, with its value in each run."""
    names = list(dict.fromkeys(name for run in runs for name in run.config if name not in NEVER_COMPARED))
    rows = {name: [run.config.get(name) for run in runs] for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def figures_of(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """Return each metric with its value in each run; None where it's missing."""
    metrics = [{**run.metrics, "seconds": round(run.seconds, 1), "steps": run.steps[0]} for run in runs]
    names = list(dict.fromkeys(name for of_run in metrics for name in of_run))
    return {name: [of_run.get(name) for of_run in metrics] for name in names}


def same_measure(runs: Sequence[RunSummary]) -> bool:
    """Return whether the losses are on the same examples: the same file, or the same split of the same file."""
    own = ("training_file", "validation_fraction", "holdout_fraction", "seed")
    keys = [
        (run.loss[0], run.method, run.config.get("validation_file") or [run.config.get(name) for name in own])
        for run in runs
    ]
    return all(key == keys[0] for key in keys)


def best_of(figures: dict[str, list[Any]]) -> dict[str, list[int]]:
    """Return each metric with the indices of its best value; only if values differ and a direction is defined."""
    best = {}
    for name, values in figures.items():
        numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
        # If there is a validation loss, a low training loss is no advantage: overfitting gives the lowest.
        direction = 0 if name.startswith("train_") and "valid_loss" in figures else _direction(name)
        if direction and len(set(numbers)) > 1:
            top = max(numbers) if direction > 0 else min(numbers)
            best[name] = [at for at, value in enumerate(values) if value == top]
    return best


def _direction(name: str) -> int:
    """Return 1 if higher is better, -1 if lower is, 0 if neither, as for values from before the training."""
    if name.endswith("_before"):
        return 0
    if name == "seconds" or name.endswith(("_loss", "_perplexity")):
        return -1
    return 1 if name.endswith(("_accuracy", "_margin")) else 0
