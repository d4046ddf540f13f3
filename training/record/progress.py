"""Progress of a run: one `ProgressEvent` per JSON line of `events.jsonl`. Imports no torch.

with EventWriter(run_dir) as events:
    events.write(ProgressEvent("started", message="…"))

fresh, offset = read_events(run_dir, offset)
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

EVENTS_FILE = "events.jsonl"
CHECKPOINTS = "checkpoints"
"""The folder in a run directory with the checkpoints to resume from."""
RUN_LOCK = "run.lock"
"""Locked by the process that works on a run directory; contains that process's id."""
EventType = Literal["started", "message", "step", "validation", "checkpoint", "health", "finished", "failed"]


@dataclass(frozen=True)
class ProgressEvent:
    """One thing that happened in a run. Fields that don't apply to its type are None."""

    type: EventType
    """The last is `finished` or `failed`; a killed run has neither."""
    message: str = ""
    """One line for people."""
    created_at: float = field(default_factory=time.time)
    """Unix seconds."""
    step: int | None = None
    """Optimizer steps done."""
    total_steps: int | None = None
    """Optimizer steps of the whole run."""
    train_loss: float | None = None
    """Mean cross-entropy of the trained tokens, in nats, since the last report."""
    train_mean_token_accuracy: float | None = None
    """Share, 0 to 1, of the trained tokens that were the most likely."""
    valid_loss: float | None = None
    """Like `train_loss`, over all validation examples."""
    valid_mean_token_accuracy: float | None = None
    """Like `train_mean_token_accuracy`, over all validation examples."""
    epoch: float | None = None
    """Passes over the training rows so far."""
    grad_norm: float | None = None
    """Norm of the gradient before clipping."""
    learning_rate: float | None = None
    """The optimizer's learning rate."""
    reward_margin: float | None = None
    """In a preference run: how much more the better answers are favoured than by the reference model, in nats times
    `beta`."""
    reward_accuracy: float | None = None
    """In a preference run: share, 0 to 1, of the pairs whose better answer is favoured."""
    tokens_per_second: float | None = None
    """Tokens trained on per second, without padding."""
    remaining_s: float | None = None
    """Estimated seconds to the end."""
    code: str | None = None
    """Of a `health` event: the finding, such as `plateau`. Of a message: `out_of_memory`. Of a failure:
    `invalid_config`, `output_exists`, `invalid_data`, `invalid_base_model`, `diverged`, `out_of_memory`,
    `unusable_adapter`, `interrupted` or `internal_error`."""
    param: str | None = None
    """Of a failure: the setting at fault."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More for machines: metrics, path and name of the adapter when finished; the faults of a data file when failed."""

    def to_json(self) -> str:
        """Return one JSON line without its newline; None, empty values and non-finite numbers are left out."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        kept = {name: value for name, value in values.items() if value not in (None, "", {}) and _is_json(value)}
        return json.dumps(kept, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> ProgressEvent:
        """Parse the event on `line`; keys of a later version are ignored.

        Raises:
            ValueError: `line` is no JSON object with a type.
        """
        values = json.loads(line)
        if not isinstance(values, dict) or "type" not in values:
            raise ValueError(f"{line[:80]!r} isn't a progress event: a JSON object with a `type` was expected.")
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


class EventWriter:
    """Appends events to RUN_DIR/events.jsonl, each at once, and passes them to `also`."""

    def __init__(self, run_dir: Path, also: Callable[[ProgressEvent], None] | None = None) -> None:
        self._file = (run_dir / EVENTS_FILE).open("a+b")
        self._callback = also
        self._complete_last_line()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, event: ProgressEvent) -> None:
        """Append `event` in one write, so that a reader sees half of it for an instant at most."""
        self._file.write(f"{event.to_json()}\n".encode())
        self._file.flush()
        if self._callback:
            self._callback(event)

    def _complete_last_line(self) -> None:
        """Complete half a line left by a killed run: a newline keeps it from corrupting our first event."""
        if self._file.seek(0, 2) > 0:
            self._file.seek(-1, 2)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")


def read_events(run_dir: Path, offset: int = 0) -> tuple[list[ProgressEvent], int]:
    """Return the events completed in RUN_DIR after byte `offset`, and the offset to continue from.

    Lines that aren't events are skipped: a killed run may leave half a line.
    """
    try:
        with (run_dir / EVENTS_FILE).open("rb") as file:
            file.seek(offset)
            fresh = file.read()
    except FileNotFoundError:
        return [], offset
    complete = fresh[: fresh.rfind(b"\n") + 1]
    events = [event for line in complete.splitlines() if (event := _parse_event(line))]
    return events, offset + len(complete)


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _parse_event(line: bytes) -> ProgressEvent | None:
    try:
        return ProgressEvent.from_json(line.decode())
    except (ValueError, TypeError):
        return None
