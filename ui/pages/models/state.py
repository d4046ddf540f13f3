"""The state of a tab of the models page: the last survey, the selected model, and the last action's result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ui.frame.session import Session
from ui.pages.models.calls import Row, Survey
from ui.server_client import Problem


@dataclass
class ModelsSession(Session):
    """One tab's state."""

    found: Survey = field(default_factory=Survey)
    asked: bool = False
    """Whether there was a survey."""
    chosen: str | None = None
    """The selected model, whose card is shown."""
    trouble: Problem | None = None
    """Why the last action or the last survey failed."""
    out_of_sight: bool = False
    """Whether `trouble` is that the last refresh failed; it disappears by itself."""
    done: tuple[str, Mapping[str, object]] | None = None
    """Key and values of the message about the last action."""
    turn: int = 0
    """Number of actions; each one's message takes the focus once."""
    history_of: str | None = None
    """The alias whose history is shown."""
    history: Sequence[Row] = ()
    import_refusal: Problem | None = None
    upload_ended: str = ""
    """The upload that ended last; the event for its start may arrive later."""
    drawn: dict[Any, str] = field(default_factory=dict)
    """Block → its HTML in the browser, so that only changed blocks are updated."""

    @property
    def version(self) -> Row | None:
        """The selected version; the newest served one if none is selected or it no longer exists."""
        versions = self.found.versions
        if self.chosen in versions:
            return versions[str(self.chosen)]
        served = [one for one in versions.values() if one["state"] == "served" and one.get("created_at")]
        newest = max(served, key=lambda one: one["created_at"], default=None)
        return newest or next(iter(versions.values()), None)

    def say(self, key: str, **values: object) -> None:
        """Set the message about what was done, and clear an earlier failure."""
        self.done, self.trouble, self.turn = (key, values), None, self.turn + 1
        self.out_of_sight = False

    def fail(self, problem: Problem) -> None:
        """Set the failure."""
        self.done, self.trouble, self.turn = None, problem, self.turn + 1
        self.out_of_sight = False
