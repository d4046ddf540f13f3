"""Summaries of the runs in a directory, from the files that they left. Imports no torch.

A killed run, a partly written directory, one that was never a run: each is reported as such, none is an error.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from training.config.config import ConfigError, TrainingConfig
from training.record.health.diagnose import Finding, diagnose
from training.record.progress import EVENTS_FILE, ProgressEvent, read_events

RECORD_FILE = "record.json"
CONFIG_FILE = "config.json"
FRESH_S = 120.0
"""Seconds; loading a base model, the longest silence in a run, seldom takes more."""
Status = Literal["waiting", "running", "succeeded", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run as shown by `tuneloop runs`."""

    id: str
    """The name of its directory."""
    path: Path
    """RUN_DIR."""
    status: Status
    """`waiting`: it hasn't started. `interrupted`: stopped or killed; it can resume from its last checkpoint."""
    config: Mapping[str, Any]
    """TrainingConfig's names and values; with the defaults if the file could be parsed."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """record.json; empty before the run has written it."""
    events: Sequence[ProgressEvent] = field(default=(), repr=False)
    """All reported events."""
    message: str = ""
    """The reason, if it failed or was stopped."""

    @cached_property
    def findings(self) -> Sequence[Finding]:
        """Findings from its curves; computed on access, as a list of many runs doesn't need them."""
        return diagnose_run(self.events, parse_config(self.config), self.record)

    @property
    def base_model(self) -> str:
        """The name under which the base model is served."""
        base = str(self.config.get("base_model", ""))
        return str(self.config.get("base_model_name") or TrainingConfig.default_base_model_name(base))

    @property
    def method(self) -> str:
        """The training method."""
        return str(self.config.get("method", "supervised"))

    @property
    def fine_tuned_model(self) -> str | None:
        """The name that clients put in `model`."""
        done = self._finished.details.get("fine_tuned_model") if self._finished else None
        return done or self.config.get("fine_tuned_model")

    @property
    def steps(self) -> tuple[int, int | None]:
        """Optimizer steps done, and those of the whole run if known."""
        done = max((event.step or 0 for event in self.events if event.type == "step"), default=0)
        return done, next((event.total_steps for event in reversed(self.events) if event.total_steps), None)

    @property
    def metrics(self) -> dict[str, Any]:
        """Losses before and after, and the other metrics; of an unfinished run, so far."""
        reported = dict(self._finished.details.get("metrics", {})) if self._finished else {}
        return _measure_losses(self.events) | reported

    @property
    def loss(self) -> tuple[str, float | None, float | None]:
        """(`valid_loss` or `train_loss`, before, after): of the validation examples if there are any."""
        metrics = self.metrics
        name = "valid_loss" if metrics.get("valid_loss") is not None else "train_loss"
        return name, metrics.get(f"{name}_before"), metrics.get(name)

    @property
    def seconds(self) -> float:
        """Running time, without pauses between resumes."""
        return seconds_of(self.events)

    @property
    def created_at(self) -> float:
        """Unix seconds of its first event."""
        if self.events:
            return self.events[0].created_at
        return (self.path / CONFIG_FILE).stat().st_mtime if (self.path / CONFIG_FILE).exists() else 0.0

    @property
    def _finished(self) -> ProgressEvent | None:
        return next((event for event in reversed(self.events) if event.type == "finished"), None)


def read_runs(runs_dir: Path) -> list[RunSummary]:
    """Return the runs in `runs_dir`, newest first; other folders are skipped. Empty if absent."""
    if not runs_dir.is_dir():
        return []
    found = [read_run(path) for path in runs_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted((run for run in found if run), key=lambda run: (run.created_at, run.id), reverse=True)


def read_run(run_dir: Path) -> RunSummary | None:
    """Return the run in `run_dir`; None if there is none."""
    if not any((run_dir / name).is_file() for name in (CONFIG_FILE, EVENTS_FILE, RECORD_FILE)):
        return None
    events, _ = read_events(run_dir)
    record = read_json_object(run_dir / RECORD_FILE)
    values = record.get("config") or read_json_object(run_dir / CONFIG_FILE)
    config = parse_config(values)
    status, message = determine_status(events, record)
    return RunSummary(
        id=run_dir.name,
        path=run_dir,
        status=status,
        config=config.to_dict() if config else values,
        record=record,
        events=events,
        message=message,
    )


def diagnose_run(
    events: Sequence[ProgressEvent], config: TrainingConfig | None, record: Mapping[str, Any]
) -> list[Finding]:
    """Diagnose the curves, with the learning rate that `auto` was resolved to if the record has it."""
    plan = record.get("plan")
    rate = plan.get("learning_rate") if isinstance(plan, dict) else None
    return diagnose(events, config, learning_rate=rate if isinstance(rate, float) else None)


def determine_status(events: Sequence[ProgressEvent], record: Mapping[str, Any]) -> tuple[Status, str]:
    """Return the status of a run, and the reason if it failed. One without an end is running if its process lives."""
    if any(event.type == "finished" for event in events):
        return "succeeded", ""  # anything later was an attempt to run it again, which is refused
    last = next((event for event in reversed(events) if event.type in ("started", "failed")), None)
    if last is not None and last.type == "failed":
        return ("interrupted" if last.code == "interrupted" else "failed"), last.message
    if is_alive(record.get("process")) or (events and "process" not in record and _is_fresh(events[-1])):
        return "running", ""
    if not events:
        return "waiting", ""
    return "interrupted", "It was killed, or the machine went down; it can resume from its last checkpoint."


def seconds_of(events: Sequence[ProgressEvent]) -> float:
    """Return the sum of the times from each start to the last event before the next."""
    seconds, started, last = 0.0, None, 0.0
    for event in events:
        if event.type == "started" or started is None:
            seconds += last - started if started is not None else 0.0
            started = event.created_at
        last = event.created_at
    return seconds + (last - started if started is not None else 0.0)


def describe_process() -> dict[str, Any]:
    """Return the identity of this process, so that another can check whether it lives."""
    return {"pid": os.getpid(), "started": _read_start_ticks(os.getpid())}


def is_alive(process: Any) -> bool:
    """Return whether the process from `describe_process` still lives; a reused pid doesn't count."""
    if not isinstance(process, dict) or not isinstance(pid := process.get("pid"), int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, under another user
    return process.get("started") in (None, _read_start_ticks(pid))


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file; empty if it is missing, partly written or something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _is_fresh(event: ProgressEvent) -> bool:
    """Return whether a run without a record reported recently enough to be running."""
    return time.time() - event.created_at < FRESH_S


def _read_start_ticks(pid: int) -> str | None:
    """Return when the process started, in the kernel's ticks; None without /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def parse_config(values: Any) -> TrainingConfig | None:
    """Parse a configuration; return None if this version doesn't support it."""
    try:
        return TrainingConfig.from_dict(values if isinstance(values, dict) else {})
    except ConfigError:  # of an older version, or written by hand and invalid
        return None


def _measure_losses(events: Sequence[ProgressEvent]) -> dict[str, float | None]:
    train = [event.train_loss for event in events if event.type == "step" and event.train_loss is not None]
    valid = {event.step: event.valid_loss for event in events if event.type == "validation"}
    values = {
        "train_loss_before": train[0] if train else None,
        "train_loss": train[-1] if train else None,
        "valid_loss_before": valid.get(0),
        "valid_loss": next((loss for loss in reversed(valid.values()) if loss is not None), None),
    }
    return {name: value for name, value in values.items() if value is not None}
