"""Real runs of `training` for the tests: a run directory, its process, its events."""

from __future__ import annotations

import dataclasses
import fcntl
import json
from pathlib import Path
from typing import Any

from tests.forked import Forked
from training.demo.examples import demo_config
from training.record.progress import ProgressEvent, read_events

NAME = "ft:tuneloop-demo:test:keeper:abcd1234"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory and the adapter that it is to make."""

    directory: Path
    output_dir: Path

    def start(self) -> Forked:
        return Forked("training", str(self.directory))

    def finish(self) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        process = self.start()
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    @property
    def events(self) -> list[ProgressEvent]:
        return read_events(self.directory)[0]

    @property
    def failure(self) -> ProgressEvent:
        event = self.events[-1]
        assert event.type == "failed"
        return event


def run_demo_once(place: Path, base: Path) -> Run:
    """The demo's own fine-tune under `place`, run by the first who asks; the file `out` has what it printed."""
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "out").exists():
            code, out, err = make_run(place, base).finish()
            assert (code, err) == (0, "")
            (place / "out").write_text(out)
    return _run_in(place)


def _run_in(place: Path) -> Run:
    return Run(place / "run", place / "adapters" / "adapter-0123456789abcdef")


def make_run(place: Path, base: Path | str, **changes: Any) -> Run:
    run = _run_in(place)
    run.directory.mkdir(parents=True)
    run.output_dir.parent.mkdir()
    config = demo_config(base, run.output_dir, fine_tuned_model=NAME).to_dict() | changes
    (run.directory / "config.json").write_text(json.dumps(config))
    return run
