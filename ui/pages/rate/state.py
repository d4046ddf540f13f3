"""What one tab of the rating page holds: the pair in front of the rater, the vote in the making, the vote before.

Pure values and one mutable session. Knows nothing of HTTP, Gradio or words.
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
"""How long the server takes a vote back, in seconds."""


@dataclass(frozen=True)
class Answer:
    """One side of the pair."""

    content: str = ""
    finished: bool = False
    cut: bool = False
    """It ended at the longest length allowed."""
    model: str | None = None
    """None while the pair is blind."""
    problem: Problem | None = None

    @classmethod
    def of(cls, side: Mapping[str, Any]) -> Answer:
        """The answer from a comparison object's side."""
        return cls(side.get("content") or "", True, side.get("finish_reason") == "length", side.get("model"))


@dataclass(frozen=True)
class Pair:
    """Two answers to one conversation."""

    comparison_id: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    left: Answer = field(default_factory=Answer)
    right: Answer = field(default_factory=Answer)
    complete: bool = False
    """Stored by the server: only then can it be voted on."""
    problem: Problem | None = None

    @classmethod
    def of(cls, comparison: Mapping[str, Any]) -> Pair:
        """The pair from a stored comparison object."""
        messages = tuple(comparison.get("messages") or ())
        return cls(comparison["id"], messages, Answer.of(comparison["left"]), Answer.of(comparison["right"]), True)

    @property
    def revealed(self) -> bool:
        """Whether the models' names are known, as they are after a vote."""
        return self.left.model is not None and self.right.model is not None

    def answer(self, side: str) -> Answer:
        """The left or the right answer."""
        return self.left if side == "left" else self.right

    def apply(self, event: Mapping[str, Any]) -> Pair:
        """The pair after one event of the stream; an unknown event changes nothing."""
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
    """The vote before this one, which can still be undone for a while."""

    rating_id: str
    comparison_id: str
    verdict: str
    left_model: str
    right_model: str
    rater: str
    """In whose name the server stored it: the only one who may undo it."""
    at_s: float
    """When it was stored, in seconds since the epoch."""

    @classmethod
    def of(cls, rating: Mapping[str, Any], now_s: float) -> StoredVote:
        """From the rating object that the server answered."""
        left, right = (rating[side].get("model") or "?" for side in SIDES)
        rater = str(rating.get("rater") or "")
        return cls(rating["id"], rating["comparison_id"], rating["verdict"], left, right, rater, now_s)

    def undo_left_s(self, now_s: float) -> int:
        """Whole seconds in which it can still be undone."""
        return max(0, int(self.at_s + UNDO_WINDOW_S - now_s))


@dataclass
class RateSession(Session):
    """One tab's state."""

    campaign: Mapping[str, Any] | None = None
    """The invitation's campaign; None where the rater asks prompts of their own."""
    rater: str = ""
    """The invitation's name for the rater, or the name they gave."""
    done: int = 0
    remaining: int = 0
    phase: Phase = "asking"
    pair: Pair | None = None
    verdict: Verdict | None = None
    supersedes: str | None = None
    """The withdrawn vote that the next vote on this pair replaces."""
    undone_rater: str = ""
    """In whose name that one was stored; the next must be in the same name."""
    last: StoredVote | None = None
    turn: int = 0
    """Counts the places to which the focus was sent."""
    notice: str | None = None
    """Key of the sentence that the rater should read now."""
    trouble: Problem | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def invited(self) -> bool:
        """Whether an invitation link brought the rater here."""
        return self.query.get("invite") is not None

    @property
    def scores_wanted(self) -> bool:
        """Whether the campaign asks for scores; without a campaign they are always offered."""
        return self.campaign is None or bool(self.campaign.get("dimensions", True))

    def to_keep(self) -> dict[str, Any]:
        """What a refresh must bring back, as JSON; the scores are kept by their form."""
        return {
            "comparison": self.pair.comparison_id if self.pair else None,
            "verdict": self.verdict,
            "supersedes": self.supersedes,
            "rater": self.rater,
            "undone_rater": self.undone_rater,
            "last": vars(self.last) if self.last else None,
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Sets the vote in the making and the vote before from what was kept; strange content is dropped."""
        self.verdict = kept["verdict"] if kept.get("verdict") in VERDICTS else None
        supersedes, last = kept.get("supersedes"), kept.get("last")
        self.supersedes = supersedes if isinstance(supersedes, str) else None
        self.rater, self.undone_rater = str(kept.get("rater") or ""), str(kept.get("undone_rater") or "")
        try:
            self.last = StoredVote(**last) if last else None
        except TypeError:
            self.last = None


def vote_body(session: RateSession, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the vote from the scoring form's fields: `left.relevance` = "4", `unsafe` = ["left"], `comment`."""
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
