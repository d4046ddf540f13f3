"""Trainer callbacks: events, validations, the best weights, early stopping, stop requests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from training.learning.batches import Measurement
from training.process.stopping import StopRequest
from training.record.progress import ProgressEvent
from training.run.best_weights import BestWeights

Report = Callable[[ProgressEvent], None]


class DivergedError(Exception):
    """The loss is NaN or infinite."""


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Reports events of the training loop, runs validations, and checks for a stop request."""

    def __init__(
        self,
        trainer: Trainer,
        report: Report,
        stop: StopRequest,
        *,
        validate: Callable[[], Measurement] | None,
        eval_steps: int,
        best: BestWeights | None,
    ) -> None:
        self._trainer, self._report, self._stop = trainer, report, stop
        self._validate, self._eval_steps, self._best = validate, eval_steps, best
        self._seen = (0, 0, 0)
        self._since = self._started = time.monotonic()
        self._first_step = 0
        self.train_loss: float | None = None
        """The last reported loss."""
        self.ended_early = False
        """Whether the run ended early because the validations didn't improve any more."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock; a resumed run begins at the step of its checkpoint."""
        self._since = self._started = time.monotonic()
        self._first_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        """Report a `step` event for each loss that the Trainer logs."""
        if not logs or "loss" not in logs:
            return
        self.train_loss = float(logs["loss"])
        refuse_divergence(self.train_loss, state.global_step)
        self._report(
            ProgressEvent(
                "step",
                f"step {state.global_step}/{state.max_steps}, loss {self.train_loss:.4f}",
                step=state.global_step,
                total_steps=state.max_steps,
                train_loss=self.train_loss,
                epoch=state.epoch,
                grad_norm=logs.get("grad_norm"),
                learning_rate=logs.get("learning_rate"),
                reward_margin=logs.get("rewards/margins"),
                reward_accuracy=logs.get("rewards/accuracies"),
                **self._measure_rates(state),
            )
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Validate when it is due; on a stop request save a checkpoint and leave the loop."""
        is_last = state.global_step >= state.max_steps
        if self._validate and (is_last or state.global_step % self._eval_steps == 0):
            self._measure(state, control)
        if self._stop.signum is not None:
            control.should_save = control.should_training_stop = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report a `checkpoint` event."""
        checkpoint = f"checkpoint-{state.global_step}"
        self._report(
            ProgressEvent("checkpoint", f"saved {checkpoint}", step=state.global_step, total_steps=state.max_steps,
                          details={"path": str(Path(args.output_dir) / checkpoint)})
        )  # fmt: skip

    def _measure(self, state: Any, control: Any) -> None:
        assert self._validate is not None  # noqa: S101 — for the type checker; the caller checks
        began = time.monotonic()
        measured = self._validate()
        self._since += time.monotonic() - began  # `tokens_per_second` is about training
        self._report(make_validation_event(measured, state.global_step, state.max_steps))
        refuse_divergence(measured.loss, state.global_step)
        if self._best:
            self._best.record(state.global_step, measured.loss)
            if self._best.is_exhausted and state.global_step < state.max_steps:
                self.ended_early = control.should_training_stop = True

    def _measure_rates(self, state: Any) -> dict[str, Any]:
        """Return the speed, and the accuracy on the last steps' tokens if the trainer counts that."""
        now, step = time.monotonic(), state.global_step
        seen = tuple(getattr(self._trainer, name, 0) for name in ("hits", "learned_tokens", "tokens"))
        hits, learned, tokens = (after - before for after, before in zip(seen, self._seen, strict=True))
        seconds, self._seen, self._since = now - self._since, (seen[0], seen[1], seen[2]), now
        return {
            "train_mean_token_accuracy": hits / learned if learned else None,
            "tokens_per_second": tokens / seconds if tokens else None,
            "remaining_s": (now - self._started) / max(1, step - self._first_step) * (state.max_steps - step),
        }


def refuse_divergence(loss: float, step: int) -> None:
    """Raise `DivergedError` when `loss` isn't finite: no later step would fix that."""
    if not math.isfinite(loss):
        raise DivergedError(f"The loss after step {step} is {loss}: the training diverged. Lower `learning_rate`.")


def make_validation_event(measured: Measurement, step: int, total_steps: int) -> ProgressEvent:
    """Make the event for a measurement on the validation examples after `step` steps."""
    return ProgressEvent(
        "validation",
        f"validation loss {measured.loss:.4f}{_format_measurement(measured)}",
        step=step,
        total_steps=total_steps,
        valid_loss=measured.loss,
        valid_mean_token_accuracy=measured.accuracy,
        reward_margin=measured.reward_margin,
        reward_accuracy=measured.reward_accuracy,
    )


def _format_measurement(measured: Measurement) -> str:
    parts = []
    if measured.reward_margin is not None:
        parts.append(f"reward margin {measured.reward_margin:.3f}")
    if measured.reward_accuracy is not None:
        parts.append(f"reward accuracy {measured.reward_accuracy:.1%}")
    if measured.accuracy is not None:
        parts.append(f"perplexity {measured.perplexity:.2f}, accuracy {measured.accuracy:.1%}")
    return "".join(f", {part}" for part in parts)
