"""The directory of one job's run: its configuration, its progress, and whether its result is in place.

It is written by `jobs/create` and by `python -m training`. This module reads it and removes what isn't needed any more.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from adapter_format.files import MANIFEST_FILE
from server.storage.tables import JobRow
from training.record.progress import CHECKPOINTS, RUN_LOCK, ProgressEvent, read_events

_WORKING_FILES = (
    "training.jsonl",
    "validation.jsonl",
    "mix.jsonl",
    "from_adapter",
    "best",
    ".publishing",
    CHECKPOINTS,
)
"""Not needed once the job has ended: users' data, which they may want deleted, and large files."""
_PATH = re.compile(r"(?<![\w:/.])(?:/[^\s/'\"`,;:)]+)+(/[^\s/'\"`,;:)]+)")


@dataclass(frozen=True)
class RunDirectory:
    """RUN_DIR of one job."""

    path: Path

    @property
    def training_file(self) -> Path:
        """The training examples."""
        return self.path / "training.jsonl"

    @property
    def validation_file(self) -> Path | None:
        """The validation examples, if the job has any."""
        path = self.path / "validation.jsonl"
        return path if path.exists() else None

    @property
    def log(self) -> Path:
        """The process's output."""
        return self.path / "output.log"

    @property
    def lock(self) -> Path:
        """The file that the process locks."""
        return self.path / RUN_LOCK

    @property
    def events_bytes(self) -> int:
        """Size of the events file."""
        try:
            return (self.path / "events.jsonl").stat().st_size
        except FileNotFoundError:
            return 0

    @cached_property
    def config(self) -> dict[str, Any]:
        """`TrainingConfig`'s names and values; empty if they can't be read."""
        return _read_json_object(self.path / "config.json")

    @property
    def plan(self) -> dict[str, Any]:
        """The values chosen for `auto`; empty until they are known."""
        plan = _read_json_object(self.path / "plan.json").get("plan", {})
        return plan if isinstance(plan, dict) else {}

    @property
    def output_dir(self) -> Path | None:
        """Where the result is renamed to when it is complete."""
        named = self.config.get("output_dir")
        return Path(named) if named else None

    @property
    def makes_adapter(self) -> bool:
        """Whether the result is an adapter that the engine can load."""
        kinds = (self.config.get("serve_as", "adapter"), self.config.get("finetuning_type", "lora"))
        return kinds == ("adapter", "lora")

    @property
    def is_done(self) -> bool:
        """Whether the result is in place."""
        return self.output_dir is not None and (self.output_dir / MANIFEST_FILE).is_file()

    @property
    def manifest(self) -> dict[str, Any]:
        """The result's manifest."""
        return _read_json_object(self.output_dir / MANIFEST_FILE) if self.output_dir else {}

    @property
    def last_checkpoint(self) -> int:
        """Step of the newest checkpoint; 0 without any."""
        steps = [path.name.rpartition("-")[2] for path in (self.path / CHECKPOINTS).glob("checkpoint-*")]
        return max((int(step) for step in steps if step.isdigit()), default=0)

    def checkpoint_path(self, step: int) -> Path:
        """Return the folder of this step's checkpoint, which may have been removed."""
        return self.path / CHECKPOINTS / f"checkpoint-{step}"

    def read_last_event(self) -> ProgressEvent | None:
        """Return the last progress event, if any."""
        events, _ = read_events(self.path)
        return events[-1] if events else None

    def finished_at(self) -> float:
        """Return when the result was in place, in Unix seconds."""
        ends = [event.created_at for event in read_events(self.path)[0] if event.type == "finished"]
        if ends:
            return ends[-1]  # recorded by the process itself; a file's time is coarser
        assert self.output_dir is not None  # noqa: S101 — asked for when the result is in place
        return (self.output_dir / MANIFEST_FILE).stat().st_mtime

    @property
    def has_working_files(self) -> bool:
        """Whether there are files that only a run needs."""
        return any((self.path / name).exists() for name in _WORKING_FILES)

    def remove_working_files(self) -> None:
        """Remove what only a run needs: its data and checkpoints."""
        for path in (self.path / name for name in _WORKING_FILES):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def replace_paths(self, text: str, job: JobRow) -> str:
        """Return `text` with all paths of this machine replaced by names."""
        base = self.config.get("base_model")
        named = [
            (self.training_file, job.training_file),
            (self.path / "validation.jsonl", job.validation_file),
            (self.path / "mix.jsonl", job.settings.get("mix_file")),
            (self.path, job.id),
            (base, self.config.get("base_model_name") or job.model),
            (self.output_dir, job.adapter_id),
        ]
        for path, name in named:
            text = text.replace(str(path), str(name)) if path and name else text
        return _PATH.sub(lambda match: match[1].lstrip("/"), text)

    def remove_result(self) -> None:
        """Remove the result, complete or partial."""
        self.remove_partial()
        if self.output_dir:
            shutil.rmtree(self.output_dir, ignore_errors=True)

    def remove_partial(self) -> None:
        """Remove a partial result."""
        if self.output_dir:
            shutil.rmtree(self.output_dir.with_name(f".partial-{self.output_dir.name}"), ignore_errors=True)


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
