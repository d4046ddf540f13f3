"""Writes the record of a run: RUN_DIR/record.json and RUN_DIR/metrics.csv. Imports no torch.

write_record(run_dir, config, plan)        # before the first step
finish_record(run_dir)                     # when it has ended, successfully or not
for run in read_runs(runs_dir): print(run.id, run.status, run.loss)
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adapter_format.disk import write_aside
from adapter_format.hashing import file_sha256
from training.config.auto import Plan
from training.config.config import TrainingConfig
from training.record.progress import ProgressEvent, read_events
from training.record.run_summary import (
    RECORD_FILE,
    RunSummary,
    Status,
    describe_process,
    determine_status,
    diagnose_run,
    parse_config,
    read_json_object,
    read_run,
    read_runs,
    seconds_of,
)

__all__ = [
    "RunSummary",
    "Status",
    "find_changed_data",
    "finish_record",
    "read_run",
    "read_runs",
    "write_metrics",
    "write_record",
]

RECORD_VERSION = 1
METRICS_FILE = "metrics.csv"
METRICS_COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
"""As in the `step_metrics.csv` of OpenAI's fine-tuning API (guide "Analyzing your fine-tuned model")."""
PACKAGES = ("tuneloop", "torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "datasets", "tokenizers")
DATA_SETTINGS = ("training_file", "validation_file", "mix_file")


def write_record(
    run_dir: Path,
    config: TrainingConfig,
    plan: Plan | None = None,
    *,
    base_model_sha256: str | None = None,
    gpu: str | None = None,
) -> Path:
    """Write RUN_DIR/record.json at the start or resume of a run; return its path.

    Args:
        plan: the schedule with resolved `auto` values and its reasons.
        base_model_sha256: the hash of the base in the adapter's manifest.
        gpu: the accelerator's name; this module doesn't ask torch for it.
    """
    record = {
        "record_version": RECORD_VERSION,
        "status": "running",
        "config": config.to_dict(),
        "plan": asdict(plan) if plan else None,
        "seed": config.seed,
        "data": _describe_data(run_dir, config),
        "base_model": {"name": config.served_base_name, "sha256": base_model_sha256},
        "versions": {"python": platform.python_version(), **_read_versions()},
        "machine": {**_describe_machine(), "gpu": gpu},
        "process": describe_process(),
    }
    return _write(run_dir, record | _summarize_outcome(run_dir, record, status="running"))


def find_changed_data(run_dir: Path, config: TrainingConfig) -> list[str]:
    """Return the settings whose file has changed since the run in `run_dir` last started; none if it never did, or used
    other files then."""
    recorded = read_json_object(run_dir / RECORD_FILE).get("data")
    recorded = recorded if isinstance(recorded, dict) else {}
    changed = []
    for name in DATA_SETTINGS:
        before, path = recorded.get(name), getattr(config, name)
        if path and isinstance(before, dict) and before.get("path") == path and before.get("sha256"):
            now = _describe_file(path)["sha256"]
            changed += [name] if now is not None and now != before["sha256"] else []
    return changed


def finish_record(run_dir: Path) -> dict[str, Any]:
    """Update record.json from events.jsonl and write metrics.csv; return the record.

    It may be called for any run at any time: what was never recorded is left out.
    """
    record = read_json_object(run_dir / RECORD_FILE)
    record |= _summarize_outcome(run_dir, record)
    _write(run_dir, record)
    write_metrics(run_dir)
    return record


def write_metrics(run_dir: Path) -> Path:
    """Write RUN_DIR/metrics.csv, one row per step with a report; return its path."""
    table = io.StringIO()
    writer = csv.DictWriter(table, METRICS_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(read_events(run_dir)[0]))
    return _write_text(run_dir / METRICS_FILE, table.getvalue())


def _summarize_outcome(run_dir: Path, record: Mapping[str, Any], status: Status | None = None) -> dict[str, Any]:
    """Summarise the events: status, times, metrics and findings; `status` overrides the first."""
    events, _ = read_events(run_dir)
    reported, message = determine_status(events, record)
    status = status or reported
    ended = events[-1].created_at if events and status != "running" else None
    began = events[0].created_at if events else None
    return {
        "status": status,
        "message": "" if status == "running" else message,
        "times": {"started_at": began, "finished_at": ended, "seconds": round(seconds_of(events), 2)},
        "metrics": RunSummary(id="", path=run_dir, status=status, config={}, events=events).metrics,
        "findings": [finding.to_dict() for finding in diagnose_run(events, parse_config(record.get("config")), record)],
    }


def _rows(events: Sequence[ProgressEvent]) -> list[dict[str, Any]]:
    """Return rows by step; if a resumed run repeated a step, the last values."""
    rows: dict[int, dict[str, Any]] = {}
    for event in events:
        if event.type not in ("step", "validation") or event.step is None:
            continue
        row = {"step": event.step, "train_loss": event.train_loss, "train_accuracy": event.train_mean_token_accuracy}
        row |= {"valid_loss": event.valid_loss, "valid_mean_token_accuracy": event.valid_mean_token_accuracy}
        rows.setdefault(event.step, {}).update({name: value for name, value in row.items() if value is not None})
    return [rows[step] for step in sorted(rows)]


def _describe_data(run_dir: Path, config: TrainingConfig) -> dict[str, Any]:
    """Describe the data files, by setting; hashed once per process, which reads them at its start."""
    recorded = read_json_object(run_dir / RECORD_FILE)
    if recorded.get("process") == describe_process() and isinstance(recorded.get("data"), dict):
        return dict(recorded["data"])
    return {name: _describe_file(path) for name in DATA_SETTINGS if (path := getattr(config, name))}


def _describe_file(path: str) -> dict[str, Any]:
    """Return the path of a data file, its hash and its size; null if it is gone."""
    try:
        return {"path": path, "sha256": file_sha256(Path(path)), "bytes": Path(path).stat().st_size}
    except OSError:
        return {"path": path, "sha256": None, "bytes": None}


def _read_versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # optional packages
    return found


def _describe_machine() -> dict[str, Any]:
    return {"system": platform.platform(), "cpu": _cpu_name(), "cores": os.cpu_count(), "memory_bytes": _memory_bytes()}


def _cpu_name() -> str:
    """Return the CPU's model name, which `platform.processor` leaves out on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _write(run_dir: Path, record: dict[str, Any]) -> Path:
    return _write_text(run_dir / RECORD_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> Path:
    with write_aside(path) as file:
        file.write_text(text, encoding="utf-8")
    return path
