"""Writes what a run was made from and what came of it: RUN_DIR/record.json and RUN_DIR/metrics.csv. Imports no torch.

write_record(run_dir, config, plan)        # before the first step
finish_record(run_dir)                     # when it has ended, well or not
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

from adapter_format.hashing import file_sha256
from training.config.auto import Plan
from training.config.config import TrainingConfig
from training.record.progress import ProgressEvent, read_events
from training.record.run_summary import (
    RECORD_FILE,
    RunSummary,
    Status,
    findings_of,
    json_object,
    read_run,
    read_runs,
    seconds_of,
    status_of,
    this_process,
    understood,
)

__all__ = [
    "RunSummary",
    "Status",
    "changed_data",
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
    """Writes RUN_DIR/record.json as the run begins or goes on; returns its path.

    Args:
        plan: the schedule that `auto` came to, with its reasons.
        base_model_sha256: the hash that the adapter's manifest names the base by.
        gpu: the accelerator's name; this module doesn't ask torch for it.
    """
    record = {
        "record_version": RECORD_VERSION,
        "status": "running",
        "config": config.to_dict(),
        "plan": asdict(plan) if plan else None,
        "seed": config.seed,
        "data": _data(run_dir, config),
        "base_model": {"name": config.served_base_name, "sha256": base_model_sha256},
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {**_machine(), "gpu": gpu},
        "process": this_process(),
    }
    return _write(run_dir, record | _outcome(run_dir, record, status="running"))


def changed_data(run_dir: Path, config: TrainingConfig) -> list[str]:
    """The settings of `config` whose file holds other bytes than when the run in `run_dir` last began; none if it never
    did, or named other files then."""
    noted = json_object(run_dir / RECORD_FILE).get("data")
    noted = noted if isinstance(noted, dict) else {}
    changed = []
    for name in DATA_SETTINGS:
        before, path = noted.get(name), getattr(config, name)
        if path and isinstance(before, dict) and before.get("path") == path and before.get("sha256"):
            now = _file(path)["sha256"]
            changed += [name] if now is not None and now != before["sha256"] else []
    return changed


def finish_record(run_dir: Path) -> dict[str, Any]:
    """Brings record.json up to date with events.jsonl and writes metrics.csv; returns the record.

    It may be called for any run at any time: what was never recorded is left out.
    """
    record = json_object(run_dir / RECORD_FILE)
    record |= _outcome(run_dir, record)
    _write(run_dir, record)
    write_metrics(run_dir)
    return record


def write_metrics(run_dir: Path) -> Path:
    """Writes RUN_DIR/metrics.csv, one row a step with a report, and returns its path."""
    table = io.StringIO()
    writer = csv.DictWriter(table, METRICS_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(read_events(run_dir)[0]))
    return _replace(run_dir / METRICS_FILE, table.getvalue())


def _outcome(run_dir: Path, record: Mapping[str, Any], status: Status | None = None) -> dict[str, Any]:
    """What the events tell: how it ended, when, with which figures and findings; `status` overrules the first."""
    events, _ = read_events(run_dir)
    told, message = status_of(events, record)
    status = status or told
    ended = events[-1].created_at if events and status != "running" else None
    began = events[0].created_at if events else None
    return {
        "status": status,
        "message": "" if status == "running" else message,
        "times": {"started_at": began, "finished_at": ended, "seconds": round(seconds_of(events), 2)},
        "metrics": RunSummary(id="", path=run_dir, status=status, config={}, events=events).metrics,
        "findings": [finding.to_dict() for finding in findings_of(events, understood(record.get("config")), record)],
    }


def _rows(events: Sequence[ProgressEvent]) -> list[dict[str, Any]]:
    """By step; of a step that a resumed run repeated, what came last."""
    rows: dict[int, dict[str, Any]] = {}
    for event in events:
        if event.type not in ("step", "validation") or event.step is None:
            continue
        row = {"step": event.step, "train_loss": event.train_loss, "train_accuracy": event.train_mean_token_accuracy}
        row |= {"valid_loss": event.valid_loss, "valid_mean_token_accuracy": event.valid_mean_token_accuracy}
        rows.setdefault(event.step, {}).update({name: value for name, value in row.items() if value is not None})
    return [rows[step] for step in sorted(rows)]


def _data(run_dir: Path, config: TrainingConfig) -> dict[str, Any]:
    """What the files of examples are, by setting; hashed once in a process, which reads them at its start."""
    noted = json_object(run_dir / RECORD_FILE)
    if noted.get("process") == this_process() and isinstance(noted.get("data"), dict):
        return dict(noted["data"])
    return {name: _file(path) for name in DATA_SETTINGS if (path := getattr(config, name))}


def _file(path: str) -> dict[str, Any]:
    """Where a file of examples was, its hash and its size; nulls where it's gone."""
    try:
        return {"path": path, "sha256": file_sha256(Path(path)), "bytes": Path(path).stat().st_size}
    except OSError:
        return {"path": path, "sha256": None, "bytes": None}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # not every machine has every one
    return found


def _machine() -> dict[str, Any]:
    return {"system": platform.platform(), "cpu": _cpu(), "cores": os.cpu_count(), "memory_bytes": _memory_bytes()}


def _cpu() -> str:
    """The processor's own name, which `platform.processor` leaves out on Linux."""
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
    return _replace(run_dir / RECORD_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _replace(path: Path, text: str) -> Path:
    """Written aside and renamed: a reader sees the old file or the new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    return aside.replace(path)
