"""The state of one comparison as a page sees it: two panes, their answers, and the vote.

Pure values: an event goes in, a new state comes out. Knows nothing of HTTP, Gradio or languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ui.client import Problem, Question, Verdict, problem_of_error

Side = Literal["left", "right"]
Phase = Literal["empty", "waiting", "writing", "done", "stopped", "failed"]
SIDES: tuple[Side, Side] = ("left", "right")
LEAST_WRITING_S = 0.02
"""Seconds between an answer's first token and its end, below which its speed is not told."""


@dataclass(frozen=True)
class Pane:
    """One side's answer, from the asking to its end."""

    phase: Phase = "empty"
    content: str = ""
    asked_model: str | None = None
    """The model that must answer here; None in a blind comparison, where only the server knows."""
    model: str | None = None
    """The model that answered, once the server has told."""
    asked_s: float = 0.0
    """When it was asked: seconds on the page's own monotonic clock, like `first_delta_s`."""
    first_delta_s: float | None = None
    deltas: int = 0
    """Pieces received, close to the number of tokens."""
    time_to_first_token_s: float | None = None
    duration_s: float | None = None
    """From the asking to the last token, as the server measured it."""
    completion_tokens: int | None = None
    finish_reason: str | None = None
    problem: Problem | None = None

    @property
    def running(self) -> bool:
        """Whether more may come."""
        return self.phase in ("waiting", "writing")

    @property
    def tokens_per_s(self) -> float | None:
        """Speed after the first token, from the server's own numbers; None where there is too little to measure.

        An answer that came all at once, as a short one does on a busy machine, says nothing about speed.
        """
        if self.completion_tokens is None or self.duration_s is None or self.time_to_first_token_s is None:
            return None
        writing_s = self.duration_s - self.time_to_first_token_s
        return (
            (self.completion_tokens - 1) / writing_s
            if self.completion_tokens > 1 and writing_s >= LEAST_WRITING_S
            else None
        )

    def add(self, delta: str, now_s: float) -> Pane:
        """The pane with more text; text for a pane that has ended is dropped."""
        if not self.running:
            return self
        first_delta_s = now_s if self.first_delta_s is None else self.first_delta_s
        return replace(
            self, phase="writing", content=self.content + delta, deltas=self.deltas + 1, first_delta_s=first_delta_s
        )

    def finish(self, event: Mapping[str, Any]) -> Pane:
        """The pane at its end; without its text if another model wrote it than was asked."""
        model = event.get("model")
        if self.asked_model is not None and model != self.asked_model:
            return self.fail(Problem("wrong_model", f"{self.asked_model} ≠ {model}"))
        return replace(
            self,
            phase="done",
            model=model,
            finish_reason=event.get("finish_reason"),
            completion_tokens=event.get("completion_tokens"),
            time_to_first_token_s=event.get("time_to_first_token_s"),
            duration_s=event.get("duration_s"),
        )

    def fail(self, problem: Problem) -> Pane:
        """The pane with the reason why no more comes; what was written stays readable, if it is this model's."""
        content = "" if problem.kind == "wrong_model" else self.content
        return replace(self, phase="failed", content=content, problem=problem)


@dataclass(frozen=True)
class Comparison:
    """Two panes side by side and what became of them."""

    left: Pane = field(default_factory=Pane)
    right: Pane = field(default_factory=Pane)
    blind: bool = False
    comparison_id: str | None = None
    completed: bool = False
    """Whether the server has stored both answers: only then can they be rated."""
    problem: Problem | None = None
    """Why the server didn't store two finished answers."""
    verdict: Verdict | None = None
    """The stored vote."""

    @classmethod
    def ask(cls, question: Question, now_s: float) -> Comparison:
        """The state right after sending."""
        names = (None, None) if question.blind else question.models
        left, right = (Pane("waiting", asked_model=name, asked_s=now_s) for name in names)
        return cls(left, right, question.blind)

    @property
    def panes(self) -> tuple[Pane, Pane]:
        """Left and right."""
        return self.left, self.right

    @property
    def running(self) -> bool:
        """Whether either side may still write."""
        return self.left.running or self.right.running

    @property
    def can_be_rated(self) -> bool:
        """Whether a vote would be taken: both answers finished and stored, and none given yet."""
        both_done = all(pane.phase == "done" for pane in self.panes)
        return both_done and self.completed and self.comparison_id is not None and self.verdict is None

    def apply(self, event: Mapping[str, Any], now_s: float) -> Comparison:
        """The state after one server event; unknown types change nothing, for a newer server may send more."""
        match event.get("type"):
            case "comparison.created":
                return replace(self, comparison_id=event["comparison_id"])
            case "comparison.delta":
                return self._with_pane(event["side"], self._pane(event).add(event["delta"], now_s))
            case "comparison.side_done":
                return self._with_pane(event["side"], self._pane(event).finish(event))
            case "comparison.side_failed":
                return self._with_pane(event["side"], self._pane(event).fail(problem_of_error(event["error"])))
            case "comparison.failed":
                return replace(self, problem=problem_of_error(event["error"]))
            case "comparison.completed":
                return replace(self, comparison_id=event["comparison"]["id"], completed=True)
        return self

    def fail(self, problem: Problem) -> Comparison:
        """The state after the whole exchange failed: sides that were still running fail with it."""
        left, right = (pane.fail(problem) if pane.running else pane for pane in self.panes)
        return replace(self, left=left, right=right)

    def stop(self) -> Comparison:
        """The state after the reader stopped it."""
        left, right = (replace(pane, phase="stopped") if pane.running else pane for pane in self.panes)
        return replace(self, left=left, right=right)

    def rate(self, verdict: Verdict, rating: Mapping[str, Any]) -> Comparison:
        """The state after the vote was stored, with the names that the rating reveals."""
        left, right = (replace(pane, model=rating[side]["model"]) for side, pane in zip(SIDES, self.panes, strict=True))
        return replace(self, left=left, right=right, verdict=verdict)

    def _pane(self, event: Mapping[str, Any]) -> Pane:
        return self.left if event["side"] == "left" else self.right

    def _with_pane(self, side: Side, pane: Pane) -> Comparison:
        return replace(self, left=pane) if side == "left" else replace(self, right=pane)
