"""The state of one model's answer, from the request to its end.

Immutable values: an event gives a new state. Knows nothing of HTTP, Gradio or languages.
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
"""Minimum seconds from the first token to the end, below which no speed is shown."""
_KEPT = ("phase", "content", "asked_model", "model", "time_to_first_token_s", "duration_s", "completion_tokens",
         "finish_reason")  # fmt: skip


@dataclass(frozen=True)
class Pane:
    """One side's answer, from the request to its end."""

    phase: Phase = "empty"
    content: str = ""
    asked_model: str | None = None
    """The model that must answer here; None if only the server knows it, as in a blind comparison."""
    model: str | None = None
    """The model that answered, once the server has reported it."""
    asked_s: float = 0.0
    """Time of the request, in seconds of the page's monotonic clock, like `first_delta_s`."""
    first_delta_s: float | None = None
    deltas: int = 0
    """Number of pieces received, close to the number of tokens."""
    time_to_first_token_s: float | None = None
    duration_s: float | None = None
    """From the request to the last token, as measured by the server."""
    completion_tokens: int | None = None
    finish_reason: str | None = None
    problem: Problem | None = None

    @property
    def running(self) -> bool:
        """Whether the answer is still in progress."""
        return self.phase in ("waiting", "writing")

    @property
    def tokens_per_s(self) -> float | None:
        """Speed after the first token, from the server's numbers; None if there is too little to measure.

        An answer that arrived all at once, for example a short one on a busy machine, has no measurable speed.
        """
        if self.completion_tokens is None or self.duration_s is None or self.time_to_first_token_s is None:
            return None
        writing_s = self.duration_s - self.time_to_first_token_s
        if self.completion_tokens <= 1 or writing_s < LEAST_WRITING_S:
            return None
        return (self.completion_tokens - 1) / writing_s

    def add(self, delta: str, now_s: float) -> Pane:
        """Return the pane with more text; after the end, text is ignored."""
        if not self.running:
            return self
        first_delta_s = now_s if self.first_delta_s is None else self.first_delta_s
        return replace(
            self, phase="writing", content=self.content + delta, deltas=self.deltas + 1, first_delta_s=first_delta_s
        )

    def finish(self, result: Mapping[str, Any]) -> Pane:
        """Return the finished pane; it fails without text if another model wrote the answer."""
        model = result.get("model")
        requested = result.get("requested_model") or model  # an alias, where `model` is its version
        if self.asked_model is not None and requested != self.asked_model:
            return self.fail(Problem("wrong_model", f"{self.asked_model} ≠ {requested}"))
        return replace(
            self,
            phase="done",
            model=model,
            finish_reason=result.get("finish_reason"),
            completion_tokens=result.get("completion_tokens"),
            time_to_first_token_s=result.get("time_to_first_token_s"),
            duration_s=result.get("duration_s"),
        )

    def fail(self, problem: Problem) -> Pane:
        """Return the failed pane; text that this model wrote stays."""
        content = "" if problem.kind == "wrong_model" else self.content
        return replace(self, phase="failed", content=content, problem=problem)

    def stop(self) -> Pane:
        """Return the pane after the user stopped it."""
        return replace(self, phase="stopped") if self.running else self

    def to_json(self) -> dict[str, Any]:
        """Return the state to restore after a refresh, as JSON."""
        problem = {"kind": self.problem.kind, "detail": self.problem.detail} if self.problem else None
        return {name: getattr(self, name) for name in _KEPT} | {"problem": problem}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Pane:
        """Return the stored pane; if it was still in progress, it is interrupted now.

        Raises:
            KeyError, TypeError, ValueError: not the output of `to_json`.
        """
        problem = kept["problem"] and Problem(kept["problem"]["kind"], str(kept["problem"]["detail"]))
        if problem and problem.kind not in get_args(ProblemKind):
            raise ValueError(problem.kind)
        pane = cls(**{name: kept[name] for name in _KEPT}, problem=problem or None)
        if pane.phase not in get_args(Phase):
            raise ValueError(pane.phase)
        return replace(pane, phase="interrupted") if pane.running else pane
