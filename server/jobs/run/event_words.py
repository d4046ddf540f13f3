"""Translates a run's progress events into OpenAI's job events, and skips those that the job already has.

It only returns the new events; the caller stores them.
https://platform.openai.com/docs/api-reference/fine-tuning/event-object
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from server.jobs.states import Level
from training.record.progress import ProgressEvent

Clean = Callable[[str], str]


@dataclass(frozen=True)
class NewEvent:
    """A job event to be stored."""

    message: str
    created_at: int
    level: Level = "info"
    metrics: dict[str, Any] | None = None
    data: dict[str, Any] | None = None


@dataclass
class EventTranslator:
    """Turns progress into job events. A resumed run repeats steps; they are reported once."""

    clean: Clean
    """Removes paths of this machine from a text."""
    step: int = 0
    """The last step whose training loss was reported."""
    validated_step: int = -1
    """The last step whose validation was reported."""
    latest: dict[str, Any] = field(default_factory=dict)
    """All metrics of the last step that has any."""
    seen_messages: set[str] = field(default_factory=set)
    """The messages so far: a resumed run begins with the same messages again."""

    def restore(self, messages: Iterable[str], metrics_events: Iterable[dict[str, Any] | None]) -> None:
        """Restore the state from the job's stored events: the messages, and the data of metrics events."""
        self.seen_messages.update(messages)
        for metrics in metrics_events:
            if metrics and isinstance(step := metrics.get("step"), int):
                if "train_loss" in metrics:
                    self.step = max(self.step, step)
                if "full_valid_loss" in metrics:
                    self.validated_step = max(self.validated_step, step)
                self._update_latest(step, metrics)

    def translate(self, event: ProgressEvent) -> NewEvent | None:
        """Return the job event for this progress event; None if there is nothing to report."""
        match event.type:
            case "step":
                return self._translate_step(event)
            case "validation":
                return self._translate_validation(event)
            case "health":
                level: Level = "info" if event.details.get("severity") == "info" else "warn"
                return self._translate_message(event, level, {k: v for k, v in event.details.items() if k != "message"})
            case "message":
                return self._translate_message(event, "warn" if event.code else "info")
            case _:  # start, checkpoints and end are reported elsewhere
                return None

    def skip_repeated(self, event: NewEvent) -> NewEvent | None:
        """Return `event`, or None if the job already has its message."""
        if event.message in self.seen_messages:
            return None
        self.seen_messages.add(event.message)
        return event

    def get_checkpoint_metrics(self, step: int) -> dict[str, Any]:
        """Return the metrics of a checkpoint after this step, by OpenAI's names."""
        names = ("train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy")
        wanted = (*names, "full_valid_loss", "full_valid_mean_token_accuracy")
        known = self.latest if self.latest.get("step") == step else {}
        return {"step": step, **{name: known[name] for name in wanted if name in known}}

    def _translate_step(self, event: ProgressEvent) -> NewEvent | None:
        if event.step is None or event.step <= self.step:
            return None
        self.step = event.step
        values = {
            "train_loss": event.train_loss,
            "train_mean_token_accuracy": event.train_mean_token_accuracy,
            "learning_rate": event.learning_rate,
            "grad_norm": event.grad_norm,
            "epoch": event.epoch,
            "tokens_per_second": event.tokens_per_second,
            "reward_margin": event.reward_margin,
            "reward_accuracy": event.reward_accuracy,
        }
        return self._build_metrics_event(event, f"training loss={_format_loss(event.train_loss)}", values)

    def _translate_validation(self, event: ProgressEvent) -> NewEvent | None:
        if event.step is None or event.step <= self.validated_step:
            return None
        self.validated_step = event.step
        values = {
            # Each validation uses all examples, so OpenAI's sampled and full metrics are the same here.
            "valid_loss": event.valid_loss,
            "valid_mean_token_accuracy": event.valid_mean_token_accuracy,
            "full_valid_loss": event.valid_loss,
            "full_valid_mean_token_accuracy": event.valid_mean_token_accuracy,
            "valid_reward_margin": event.reward_margin,
            "valid_reward_accuracy": event.reward_accuracy,
        }
        shown = _format_loss(event.valid_loss)
        return self._build_metrics_event(event, f"validation loss={shown}, full validation loss={shown}", values)

    def _build_metrics_event(self, event: ProgressEvent, text: str, values: dict[str, Any]) -> NewEvent:
        known = {name: value for name, value in values.items() if value is not None}
        metrics = {"step": event.step, "total_steps": event.total_steps, **known}
        self._update_latest(int(event.step or 0), metrics)
        return NewEvent(f"Step {event.step}/{event.total_steps}: {text}", int(event.created_at), metrics=metrics)

    def _update_latest(self, step: int, metrics: dict[str, Any]) -> None:
        if step > self.latest.get("step", -1):
            self.latest = {}
        if step >= self.latest.get("step", -1):
            self.latest |= metrics

    def _translate_message(
        self, event: ProgressEvent, level: Level, details: dict[str, Any] | None = None
    ) -> NewEvent | None:
        data = {"code": event.code, **(details or {})} if event.code else None
        return self.skip_repeated(NewEvent(self.clean(event.message), int(event.created_at), level, data=data))


def _format_loss(loss: float | None) -> str:
    return "unknown" if loss is None else f"{loss:.4g}"
