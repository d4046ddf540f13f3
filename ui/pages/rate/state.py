"""The state of a tab of the rating page: the current pair, the unfinished rating, the last rating.

Immutable values and one mutable session. Knows nothing of HTTP, Gradio or texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ui.frame.session import Session
from ui.server_client import Problem, problem_of_error

Verdict = Literal["left", "right", "tie", "both_bad"]
Phase = Literal["asking", "streaming", "voting", "scoring", "storing", "stored", "finished"]
SIDES = ("left", "right")
VERDICTS: tuple[Verdict, ...] = ("left", "right", "tie", "both_bad")
DIMENSIONS = ("instruction_following", "relevance", "fluency", "helpfulness")
UNDO_WINDOW_S = 60
"""Seconds within which the server allows an undo."""


@dataclass(frozen=True)
class Answer:
    """One side of the pair."""

    content: str = ""
    finished: bool = False
    cut: bool = False
    """Whether it reached the maximum length."""
    model: str | None = None
    """None while the pair is blind."""
    problem: Problem | None = None

    @classmethod
    def of(cls, side: Mapping[str, Any]) -> Answer:
        """Return the answer from a comparison object's side."""
        return cls(side.get("content") or "", True, side.get("finish_reason") == "length", side.get("model"))


@dataclass(frozen=True)
class Pair:
    """Two answers to one conversation."""

    comparison_id: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    left: Answer = field(default_factory=Answer)
    right: Answer = field(default_factory=Answer)
    complete: bool = False
    """Stored by the server: only then can it be rated."""
    problem: Problem | None = None

    @classmethod
    def of(cls, comparison: Mapping[str, Any]) -> Pair:
        """Return the pair from a stored comparison object."""
        messages = tuple(comparison.get("messages") or ())
        return cls(comparison["id"], messages, Answer.of(comparison["left"]), Answer.of(comparison["right"]), True)

    @property
    def revealed(self) -> bool:
        """Whether the models' names are known, as they are after a rating."""
        return self.left.model is not None and self.right.model is not None

    def answer(self, side: str) -> Answer:
        """Return the left or the right answer."""
        return self.left if side == "left" else self.right

    def apply(self, event: Mapping[str, Any]) -> Pair:
        """Return the pair after one event of the stream; unknown events change nothing."""
        match event.get("type"):
            case "comparison.created":
                return replace(self, comparison_id=event["comparison_id"])
            case "comparison.delta":
                shown = self.answer(event["side"])
                return self._with(event["side"], replace(shown, content=shown.content + event["delta"]))
            case "comparison.side_done":
                cut = event.get("finish_reason") == "length"
                return self._with(event["side"], replace(self.answer(event["side"]), finished=True, cut=cut))
            case "comparison.side_failed":
                problem = problem_of_error(event["error"])
                return self._with(event["side"], replace(self.answer(event["side"]), problem=problem))
            case "comparison.failed":
                return replace(self, problem=problem_of_error(event["error"]))
            case "comparison.completed":
                return Pair.of(event["comparison"])
        return self

    def _with(self, side: str, answer: Answer) -> Pair:
        return replace(self, left=answer) if side == "left" else replace(self, right=answer)


@dataclass(frozen=True)
class StoredVote:
    """The last rating, which can be undone for a while."""

    rating_id: str
    comparison_id: str
    verdict: str
    left_model: str
    right_model: str
    rater: str
    """The rater's name under which it is stored; only this rater may undo it."""
    at_s: float
    """Time when it was stored, in seconds since the epoch."""

    @classmethod
    def of(cls, rating: Mapping[str, Any], now_s: float) -> StoredVote:
        """Return the rating from the server's rating object."""
        left, right = (rating[side].get("model") or "?" for side in SIDES)
        rater = str(rating.get("rater") or "")
        return cls(rating["id"], rating["comparison_id"], rating["verdict"], left, right, rater, now_s)

    def undo_left_s(self, now_s: float) -> int:
        """Return the whole seconds within which it can still be undone."""
        return max(0, int(self.at_s + UNDO_WINDOW_S - now_s))


@dataclass
class RateSession(Session):
    """One tab's state."""

    campaign: Mapping[str, Any] | None = None
    """The invitation's campaign; None if raters enter their own prompts."""
    rater: str = ""
    """The rater's name, from the invitation or as entered."""
    done: int = 0
    remaining: int = 0
    phase: Phase = "asking"
    pair: Pair | None = None
    verdict: Verdict | None = None
    supersedes: str | None = None
    """The withdrawn rating that the next rating of this pair replaces."""
    undone_rater: str = ""
    """The rater's name of the withdrawn rating; the next one needs the same name."""
    last: StoredVote | None = None
    turn: int = 0
    """Number of focus moves so far."""
    notice: str | None = None
    """Key of the current message."""
    trouble: Problem | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def invited(self) -> bool:
        """Whether the rater came with an invitation link."""
        return self.query.get("invite") is not None

    @property
    def scores_wanted(self) -> bool:
        """Whether scores are shown: always, unless the campaign doesn't ask for them."""
        return self.campaign is None or bool(self.campaign.get("dimensions", True))

    def to_keep(self) -> dict[str, Any]:
        """Return the state to restore after a refresh, as JSON; the form keeps its own scores."""
        return {
            "comparison": self.pair.comparison_id if self.pair else None,
            "verdict": self.verdict,
            "supersedes": self.supersedes,
            "rater": self.rater,
            "undone_rater": self.undone_rater,
            "last": vars(self.last) if self.last else None,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Restore the unfinished and the last rating from stored state; invalid content is ignored."""
        self.verdict = kept["verdict"] if kept.get("verdict") in VERDICTS else None
        supersedes, last = kept.get("supersedes"), kept.get("last")
        self.supersedes = supersedes if isinstance(supersedes, str) else None
        self.rater, self.undone_rater = str(kept.get("rater") or ""), str(kept.get("undone_rater") or "")
        try:
            self.last = StoredVote(**last) if last else None
        except TypeError:
            self.last = None


def vote_body(session: RateSession, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rating's body from the form's fields: `left.relevance` = "4", `unsafe` = ["left"], `comment`."""
    unsafe = fields.get("unsafe") or []
    body: dict[str, Any] = {"verdict": session.verdict}
    dimensions = {
        side: {name: int(fields[f"{side}.{name}"]) for name in DIMENSIONS if fields.get(f"{side}.{name}")}
        for side in SIDES
    }
    body |= {"dimensions": scored} if (scored := {side: given for side, given in dimensions.items() if given}) else {}
    body |= {"unsafe": "both" if len(unsafe) == 2 else unsafe[0]} if unsafe else {}
    comment = str(fields.get("comment") or "").strip()
    body |= {"comment": comment} if comment else {}
    rater = session.undone_rater if session.supersedes else session.rater
    body |= {"rater": rater} if rater and not session.invited else {}
    return body | ({"supersedes": session.supersedes} if session.supersedes else {})
