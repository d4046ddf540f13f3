"""The state of a tab of the training page: files and models, the preflight, the jobs, and the open job."""

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
    """Return tuneloop's state of the job, which includes `paused` and `pausing`, unlike OpenAI's status."""
    return str((job.get("tuneloop") or {}).get("state") or job["status"])


@dataclass
class OpenJob:
    """One job with its events and checkpoints."""

    id: str
    job: Mapping[str, Any] | None = None
    events: list[Mapping[str, Any]] = field(default_factory=list)
    """Oldest first."""
    checkpoints: Sequence[Mapping[str, Any]] = ()
    changing: bool = False
    """Whether a pause, resume or cancel is in progress."""

    @property
    def last_event(self) -> str | None:
        """Id of the newest event."""
        return str(self.events[-1]["id"]) if self.events else None

    @property
    def goes_on(self) -> bool:
        """Whether the job can still change."""
        return self.job is None or state_of(self.job) in GOING_ON | {"pausing"}

    def points(self, name: str) -> list[Point]:
        """Return the values of a metric by step; if a step was reported twice, the last value."""
        found = {
            int(event["data"]["step"]): float(event["data"][name])
            for event in self.events
            if event["type"] == "metrics" and isinstance(event["data"].get(name), (int, float))
        }
        return sorted(found.items())

    @property
    def progress(self) -> tuple[int, int] | None:
        """(steps done, total steps); None before the first step."""
        metrics = [event["data"] for event in self.events if event["type"] == "metrics"]
        if not metrics:
            return None
        return max(int(data["step"]) for data in metrics), int(metrics[-1].get("total_steps") or 0)

    @property
    def findings(self) -> list[Mapping[str, Any]]:
        """The findings: events whose data has a severity."""
        return [event for event in self.events if (event.get("data") or {}).get("severity")]


@dataclass
class TrainSession(Session):
    """One tab's state."""

    opened: bool = False
    """Whether `open` was called: after a restart, the server gets requests from tabs that it didn't open."""
    files: Sequence[Mapping[str, Any]] = ()
    file_id: str = ""
    """The file in the address."""
    model: str = ""
    """The model in the address."""
    jobs: Sequence[Mapping[str, Any]] | None = None
    """Newest first; None before they were listed."""
    open_job: OpenJob | None = None
    checked_body: Mapping[str, Any] | None = None
    """The request of the current preflight."""
    preflight: Mapping[str, Any] | None = None
    checking: bool = False
    starting: bool = False
    outdated: bool = False
    """Whether the form was changed after the preflight."""
    form_problem: Problem | None = None
    trouble: Problem | None = None
    message: Markup = field(default_factory=Markup)
    """HTML of the message about the last action."""
    looking: bool = False
    """Whether the jobs are being requested; another poll meanwhile is skipped."""
    drawn: dict[Any, str] = field(default_factory=dict)
    """Block → its HTML in the browser."""

    def query_now(self) -> dict[str, str]:
        """Return the address's query that restores this state."""
        query = {"job": self.open_job.id if self.open_job else "", "file": self.file_id}
        return {name: value for name, value in query.items() if value}
