"""What a tab of the training page holds: what may be chosen, what was foreseen, the jobs, and the one that is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from ui.frame.session import Session
from ui.server_client import Problem

GOING_ON = frozenset({"validating_files", "queued", "running", "paused"})
"""States of a job that hasn't ended."""
Point = tuple[int, float]
"""(optimizer step, value)"""


def state_of(job: Mapping[str, Any]) -> str:
    """The job's state in our own words, `paused` and `pausing` among them, which OpenAI's set lacks."""
    return str((job.get("tuneloop") or {}).get("state") or job["status"])


@dataclass
class OpenJob:
    """One job with all that it told."""

    id: str
    job: Mapping[str, Any] | None = None
    events: list[Mapping[str, Any]] = field(default_factory=list)
    """Oldest first."""
    checkpoints: Sequence[Mapping[str, Any]] = ()
    changing: bool = False
    """A pause, resume or cancel is on its way."""

    @property
    def last_event(self) -> str | None:
        """The newest event's id."""
        return str(self.events[-1]["id"]) if self.events else None

    @property
    def goes_on(self) -> bool:
        """Whether something new can still come."""
        return self.job is None or state_of(self.job) in GOING_ON | {"pausing"}

    def points(self, name: str) -> list[Point]:
        """The metric of that name by step; of a step that was told twice, what came last."""
        found = {
            int(event["data"]["step"]): float(event["data"][name])
            for event in self.events
            if event["type"] == "metrics" and isinstance(event["data"].get(name), (int, float))
        }
        return sorted(found.items())

    @property
    def progress(self) -> tuple[int, int] | None:
        """(steps done, steps of the whole run); None before the first."""
        told = [event["data"] for event in self.events if event["type"] == "metrics"]
        if not told:
            return None
        return max(int(data["step"]) for data in told), int(told[-1].get("total_steps") or 0)

    @property
    def findings(self) -> list[Mapping[str, Any]]:
        """What health said: events whose data has a severity."""
        return [event for event in self.events if (event.get("data") or {}).get("severity")]


@dataclass
class TrainSession(Session):
    """One tab's state."""

    opened: bool = False
    """Whether `open` was ever called: a server that was started again meets tabs that it didn't open."""
    files: Sequence[Mapping[str, Any]] = ()
    file_id: str = ""
    """The file that the address chose."""
    model: str = ""
    """The model that the address chose."""
    jobs: Sequence[Mapping[str, Any]] | None = None
    """Newest first; None until they could be listed."""
    open_job: OpenJob | None = None
    checked_body: Mapping[str, Any] | None = None
    """What was asked with the preflight that is shown."""
    preflight: Mapping[str, Any] | None = None
    checking: bool = False
    starting: bool = False
    outdated: bool = False
    """The form was changed after the preflight."""
    form_problem: Problem | None = None
    trouble: Problem | None = None
    message: Markup = field(default_factory=Markup)
    """HTML of what was done last."""
    looking: bool = False
    """The jobs are being asked for; another look meanwhile is left out."""
    drawn: dict[Any, str] = field(default_factory=dict)
    """Block → the HTML that the browser has."""

    def query_now(self) -> dict[str, str]:
        """The address's query that brings all of it back."""
        told = {"job": self.open_job.id if self.open_job else "", "file": self.file_id}
        return {name: value for name, value in told.items() if value}
