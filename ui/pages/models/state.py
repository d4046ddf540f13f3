"""What one tab of the models page holds: the last survey, the chosen model, and what was just done or refused."""

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
    """Whether there is a survey yet."""
    chosen: str | None = None
    """The model whose card is shown."""
    trouble: Problem | None = None
    """Why the last action, or the last survey, failed."""
    out_of_sight: bool = False
    """Whether `trouble` is that the last look failed; it goes by itself."""
    done: tuple[str, Mapping[str, object]] | None = None
    """Key and values of the sentence that says what was done last."""
    turn: int = 0
    """Counts actions: what each had to say takes the focus once."""
    history_of: str | None = None
    """The alias whose changes are shown."""
    history: Sequence[Row] = ()
    import_refusal: Problem | None = None
    upload_ended: str = ""
    """The upload that ended last; the word that it begins may come after that."""
    drawn: dict[Any, str] = field(default_factory=dict)
    """Block → its HTML as the browser has it, so that a look that finds nothing new draws nothing."""

    @property
    def version(self) -> Row | None:
        """The chosen version; the newest served one where none is chosen, or the chosen one is gone."""
        versions = self.found.versions
        if self.chosen in versions:
            return versions[str(self.chosen)]
        served = [one for one in versions.values() if one["state"] == "served" and one.get("created_at")]
        newest = max(served, key=lambda one: one["created_at"], default=None)
        return newest or next(iter(versions.values()), None)

    def say(self, key: str, **values: object) -> None:
        """What was done; an earlier failure is forgotten."""
        self.done, self.trouble, self.turn = (key, values), None, self.turn + 1
        self.out_of_sight = False

    def fail(self, problem: Problem) -> None:
        """What failed."""
        self.done, self.trouble, self.turn = None, problem, self.turn + 1
        self.out_of_sight = False
