"""One model's answer as a page sees it, from the asking to its end.

Pure values: an event goes in, a new state comes out. Knows nothing of HTTP, Gradio or languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ui.server_client import Problem, ProblemKind

Side = Literal["left", "right", "third", "fourth"]
Phase = Literal["empty", "waiting", "writing", "done", "stopped", "interrupted", "failed"]
SIDES: tuple[Side, ...] = ("left", "right", "third", "fourth")
LEAST_WRITING_S = 0.02
"""Seconds between an answer's first token and its end, below which its speed is not told."""
_KEPT = ("phase", "content", "asked_model", "model", "time_to_first_token_s", "duration_s", "completion_tokens",
         "finish_reason")  # fmt: skip


@dataclass(frozen=True)
class Pane:
    """One side's answer, from the asking to its end."""

    phase: Phase = "empty"
    content: str = ""
    asked_model: str | None = None
    """The model that must answer here; None where only the server knows, as in a blind comparison."""
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
        if self.completion_tokens <= 1 or writing_s < LEAST_WRITING_S:
            return None
        return (self.completion_tokens - 1) / writing_s

    def add(self, delta: str, now_s: float) -> Pane:
        """The pane with more text; text for a pane that has ended is dropped."""
        if not self.running:
            return self
        first_delta_s = now_s if self.first_delta_s is None else self.first_delta_s
        return replace(
            self, phase="writing", content=self.content + delta, deltas=self.deltas + 1, first_delta_s=first_delta_s
        )

    def finish(self, told: Mapping[str, Any]) -> Pane:
        """The pane at its end; without its text if another model wrote it than was asked."""
        model = told.get("model")
        if self.asked_model is not None and model != self.asked_model:
            return self.fail(Problem("wrong_model", f"{self.asked_model} ≠ {model}"))
        return replace(
            self,
            phase="done",
            model=model,
            finish_reason=told.get("finish_reason"),
            completion_tokens=told.get("completion_tokens"),
            time_to_first_token_s=told.get("time_to_first_token_s"),
            duration_s=told.get("duration_s"),
        )

    def fail(self, problem: Problem) -> Pane:
        """The pane with the reason why no more comes; what was written stays readable, if it is this model's."""
        content = "" if problem.kind == "wrong_model" else self.content
        return replace(self, phase="failed", content=content, problem=problem)

    def stop(self) -> Pane:
        """The pane after the reader stopped it."""
        return replace(self, phase="stopped") if self.running else self

    def to_json(self) -> dict[str, Any]:
        """What a refresh must give back, as JSON."""
        problem = {"kind": self.problem.kind, "detail": self.problem.detail} if self.problem else None
        return {name: getattr(self, name) for name in _KEPT} | {"problem": problem}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Pane:
        """The pane from `kept`; one that was still written then is interrupted now.

        Raises:
            KeyError, TypeError, ValueError: not what `kept` wrote.
        """
        problem = kept["problem"] and Problem(kept["problem"]["kind"], str(kept["problem"]["detail"]))
        if problem and problem.kind not in get_args(ProblemKind):
            raise ValueError(problem.kind)
        pane = cls(**{name: kept[name] for name in _KEPT}, problem=problem or None)
        if pane.phase not in get_args(Phase):
            raise ValueError(pane.phase)
        return replace(pane, phase="interrupted") if pane.running else pane
