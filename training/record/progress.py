"""What a run tells the world: one `ProgressEvent` per JSON line of `events.jsonl`. Imports no torch.

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
"""The folder of a run directory with what a stopped run goes on from."""
RUN_LOCK = "run.lock"
"""Held by the process that works on a run directory; it holds that process's id."""
EventType = Literal["started", "message", "step", "validation", "checkpoint", "health", "finished", "failed"]


@dataclass(frozen=True)
class ProgressEvent:
    """One thing that happened in a run. What doesn't apply to its type is None."""

    type: EventType
    """The last is `finished` or `failed`; a run that was killed has neither."""
    message: str = ""
    """The same for people, one line."""
    created_at: float = field(default_factory=time.time)
    """Unix seconds."""
    step: int | None = None
    """Optimizer steps done."""
    total_steps: int | None = None
    """Optimizer steps of the whole run."""
    train_loss: float | None = None
    """Mean cross-entropy of the learned tokens, in nats, since the last report."""
    train_mean_token_accuracy: float | None = None
    """Share, 0 to 1, of the learned tokens that were the likeliest."""
    valid_loss: float | None = None
    """As `train_loss`, over all validation examples."""
    valid_mean_token_accuracy: float | None = None
    """As `train_mean_token_accuracy`, over all validation examples."""
    epoch: float | None = None
    """Passes over the training rows done so far."""
    grad_norm: float | None = None
    """Length of the gradient before it was clipped."""
    learning_rate: float | None = None
    """The optimizer's step size."""
    reward_margin: float | None = None
    """Of a preference run: how much more the better answers are favoured than by the model it started from, in nats
    times `beta`."""
    reward_accuracy: float | None = None
    """Of a preference run: share, 0 to 1, of the pairs whose better answer is the favoured one."""
    tokens_per_second: float | None = None
    """Tokens trained on per second, padding not counted."""
    remaining_s: float | None = None
    """Estimate of the seconds to the end."""
    code: str | None = None
    """Of a `health` event: what was seen, such as `plateau`. Of a message: `out_of_memory`. Of a failure:
    `invalid_config`, `output_exists`, `invalid_data`, `invalid_base_model`, `diverged`, `out_of_memory`,
    `unusable_adapter`, `interrupted` or `internal_error`."""
    param: str | None = None
    """Of a failure: the setting at fault."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More for machines: metrics, path and name of the adapter when finished; the faults of a data file when failed."""

    def to_json(self) -> str:
        """One JSON line without its newline; None, empty values and numbers that aren't finite are left out."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        kept = {name: value for name, value in values.items() if value not in (None, "", {}) and _is_json(value)}
        return json.dumps(kept, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> ProgressEvent:
        """The event on `line`; keys of a later version are ignored.

        Raises:
            ValueError: `line` is no JSON object with a type.
        """
        values = json.loads(line)
        if not isinstance(values, dict) or "type" not in values:
            raise ValueError(f"{line[:80]!r} isn't a progress event: a JSON object with a `type` was expected.")
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


class EventWriter:
    """Appends events to RUN_DIR/events.jsonl, each at once, and hands it to `also`."""

    def __init__(self, run_dir: Path, also: Callable[[ProgressEvent], None] | None = None) -> None:
        self._file = (run_dir / EVENTS_FILE).open("a+b")
        self._also = also
        self._end_torn_line()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, event: ProgressEvent) -> None:
        """Appends `event` in one write, so that a reader never sees half of it for longer than an instant."""
        self._file.write(f"{event.to_json()}\n".encode())
        self._file.flush()
        if self._also:
            self._also(event)

    def _end_torn_line(self) -> None:
        """A run that was killed may have left half a line; a newline keeps it from spoiling our first event."""
        if self._file.seek(0, 2) > 0:
            self._file.seek(-1, 2)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")


def read_events(run_dir: Path, offset: int = 0) -> tuple[list[ProgressEvent], int]:
    """The events that were completed in RUN_DIR after byte `offset`, and the offset to go on from.

    Lines that aren't events are passed over: what a killed run left half written.
    """
    try:
        with (run_dir / EVENTS_FILE).open("rb") as file:
            file.seek(offset)
            fresh = file.read()
    except FileNotFoundError:
        return [], offset
    complete = fresh[: fresh.rfind(b"\n") + 1]
    events = [event for line in complete.splitlines() if (event := _event_or_none(line))]
    return events, offset + len(complete)


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _event_or_none(line: bytes) -> ProgressEvent | None:
    try:
        return ProgressEvent.from_json(line.decode())
    except (ValueError, TypeError):
        return None
