"""A run's progress events in the words of OpenAI's job events. Keeps what has been told, so that nothing is told twice.

Writes nothing itself: it says what is to be written.
https://platform.openai.com/docs/api-reference/fine-tuning/event-object
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from server.jobs.events import Level
from training.record.progress import ProgressEvent

Clean = Callable[[str], str]


@dataclass(frozen=True)
class Told:
    """One event to be written."""

    message: str
    created_at: int
    level: Level = "info"
    metrics: dict[str, Any] | None = None
    data: dict[str, Any] | None = None


@dataclass
class Narrator:
    """Turns progress into job events. A run that goes on repeats steps; they are told once."""

    clean: Clean
    """Takes out of a text what is nobody's business."""
    step: int = 0
    """The last step whose training loss has been told."""
    validated_step: int = -1
    """The last step whose validation has been told."""
    latest: dict[str, Any] = field(default_factory=dict)
    """All metrics of the last step that has any."""
    said: set[str] = field(default_factory=set)
    """The messages that have been told: a run that goes on begins with the same words again."""

    def remember(self, messages: Iterable[str], told: Iterable[dict[str, Any] | None]) -> None:
        """Takes up what an earlier process, or server, has told: the messages, and the data of metrics events."""
        self.said.update(messages)
        for metrics in told:
            if metrics and isinstance(step := metrics.get("step"), int):
                if "train_loss" in metrics:
                    self.step = max(self.step, step)
                if "full_valid_loss" in metrics:
                    self.validated_step = max(self.validated_step, step)
                self._note(step, metrics)

    def tell(self, event: ProgressEvent) -> Told | None:
        """What is to be written of this event; None when there is nothing to say."""
        match event.type:
            case "step":
                return self._training(event)
            case "validation":
                return self._validation(event)
            case "health":
                level: Level = "info" if event.details.get("severity") == "info" else "warn"
                return self._plain(event, level, {k: v for k, v in event.details.items() if k != "message"})
            case "message":
                return self._plain(event, "warn" if event.code else "info")
            case _:  # how it began, its checkpoints and its end are told by whoever sees to them
                return None

    def once(self, told: Told) -> Told | None:
        """`told`, unless it has been told."""
        if told.message in self.said:
            return None
        self.said.add(told.message)
        return told

    def metrics_at(self, step: int) -> dict[str, Any]:
        """The metrics of a checkpoint after this step, by OpenAI's names."""
        names = ("train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy")
        wanted = (*names, "full_valid_loss", "full_valid_mean_token_accuracy")
        known = self.latest if self.latest.get("step") == step else {}
        return {"step": step, **{name: known[name] for name in wanted if name in known}}

    def _training(self, event: ProgressEvent) -> Told | None:
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
        return self._metrics(event, f"training loss={_shown(event.train_loss)}", values)

    def _validation(self, event: ProgressEvent) -> Told | None:
        if event.step is None or event.step <= self.validated_step:
            return None
        self.validated_step = event.step
        values = {
            # All validation examples are measured each time: OpenAI's sample of them and its whole are one here.
            "valid_loss": event.valid_loss,
            "valid_mean_token_accuracy": event.valid_mean_token_accuracy,
            "full_valid_loss": event.valid_loss,
            "full_valid_mean_token_accuracy": event.valid_mean_token_accuracy,
            "valid_reward_margin": event.reward_margin,
            "valid_reward_accuracy": event.reward_accuracy,
        }
        shown = _shown(event.valid_loss)
        return self._metrics(event, f"validation loss={shown}, full validation loss={shown}", values)

    def _metrics(self, event: ProgressEvent, text: str, values: dict[str, Any]) -> Told:
        known = {name: value for name, value in values.items() if value is not None}
        metrics = {"step": event.step, "total_steps": event.total_steps, **known}
        self._note(int(event.step or 0), metrics)
        return Told(f"Step {event.step}/{event.total_steps}: {text}", int(event.created_at), metrics=metrics)

    def _note(self, step: int, metrics: dict[str, Any]) -> None:
        if step > self.latest.get("step", -1):
            self.latest = {}
        if step >= self.latest.get("step", -1):
            self.latest |= metrics

    def _plain(self, event: ProgressEvent, level: Level, details: dict[str, Any] | None = None) -> Told | None:
        data = {"code": event.code, **(details or {})} if event.code else None
        return self.once(Told(self.clean(event.message), int(event.created_at), level, data=data))


def _shown(loss: float | None) -> str:
    return "unknown" if loss is None else f"{loss:.4g}"
