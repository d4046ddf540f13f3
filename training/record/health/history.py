"""The history of a run for `health`: losses, gradients, rewards, validations. Imports no torch.

Also undoes the repeated steps of a resumed run, and has the robust statistics.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from training.config.config import TrainingConfig
from training.record.progress import ProgressEvent

NOISE_WINDOW = 200
"""Reports for the estimate of noise: enough for a stable figure, few enough to evaluate after every step."""
PER_SIGMA = 1.4826
"""A normal distribution's standard deviation, in median absolute deviations."""


@dataclass
class History:
    """The input of the rules, updated by `add`."""

    config: TrainingConfig | None = None
    """The settings, for advice that names values; without them the advice is general."""
    learning_rate: float | None = None
    """The peak, from the settings; else the highest that was reported."""
    validation_examples: int | None = None
    """Number of validation examples, if known."""
    steps: list[ProgressEvent] = field(default_factory=list)
    """The `step` events with a finite loss, in order, each step once."""
    losses: list[float] = field(default_factory=list)
    """Their training losses."""
    validations: dict[int, float] = field(default_factory=dict)
    """Step -> validation loss, in order."""
    total_steps: int | None = None
    """Optimizer steps of the whole run."""
    not_finite_at: int | None = None
    """The first step whose loss was NaN or infinite; None if there is none."""
    ended: bool = False
    """Whether the run has finished."""

    def add(self, event: ProgressEvent) -> None:
        """Add `event`; one that repeats a step, as in a resumed run, replaces everything from there on."""
        self.total_steps = event.total_steps or self.total_steps
        counted = event.details.get("validation_examples")
        self.validation_examples = counted if isinstance(counted, int) else self.validation_examples
        self.ended = event.type == "finished"
        if event.type == "step" and event.step is not None:
            self._add_step(event, event.step)
        elif event.type == "validation" and event.step is not None:
            self._add_validation(event.step, event.valid_loss)
        elif event.type == "failed" and event.code == "diverged":
            self.not_finite_at = self.last_step

    @property
    def last_step(self) -> int:
        """The last reported step; 0 before the first."""
        return self.steps[-1].step or 0 if self.steps else 0

    @property
    def share_done(self) -> float:
        """Share of the run that is done, 0 to 1; 0 if its length is unknown."""
        return 1.0 if self.ended else self.last_step / self.total_steps if self.total_steps else 0.0

    @property
    def peak_learning_rate(self) -> float | None:
        """The highest learning rate that is or will be used, if known."""
        if self.learning_rate is not None:
            return self.learning_rate
        return max((event.learning_rate for event in self.steps if event.learning_rate is not None), default=None)

    @property
    def is_preference(self) -> bool:
        """Whether the run learns from better and worse answers, so that its loss isn't a cross-entropy."""
        if self.config:
            return self.config.method in ("dpo", "kto")
        return any(event.reward_margin is not None for event in self.steps[-3:])

    def epoch_at(self, step: int) -> float | None:
        """Return the passes over the training rows completed at `step`, if the events say."""
        last = next((event for event in reversed(self.steps) if (event.step or 0) <= step), None)
        return last.epoch if last else None

    def _add_step(self, event: ProgressEvent, step: int) -> None:
        while self.steps and (self.steps[-1].step or 0) >= step:
            self.steps.pop()
            self.losses.pop()
            self._drop_validations(step)
        # A loss of NaN or infinity can't be written as JSON: in a file the report has none.
        if event.train_loss is None or not math.isfinite(event.train_loss):
            self.not_finite_at = step if self.not_finite_at is None else self.not_finite_at
            return
        self.steps.append(event)
        self.losses.append(event.train_loss)

    def _drop_validations(self, step: int) -> None:
        self.validations = {at: loss for at, loss in self.validations.items() if at < step}

    def _add_validation(self, step: int, loss: float | None) -> None:
        # A resumed run measures the untrained adapter again, which adds nothing.
        if loss is None or not math.isfinite(loss) or (step == 0 and 0 in self.validations):
            return
        self.validations[step] = loss


def estimate_noise(values: Sequence[float]) -> float:
    """Estimate the standard deviation of the noise in `values` from the differences between neighbours.

    A trend hardly affects these, and the median ignores outliers.
    """
    recent = values[-NOISE_WINDOW:]
    jumps = [abs(after - before) for before, after in pairwise(recent)]
    return PER_SIGMA * statistics.median(jumps) / math.sqrt(2) if jumps else 0.0


def estimate_drift(values: Sequence[float], lag: int) -> float:
    """Estimate the standard deviation of the noise in `values` including slow drift; 0 for too few values.

    Batches of similar examples make losses drift: neighbours differ little, and only values `lag` apart show it all. Of
    three values `lag` apart it takes the middle one's distance from the line, so that a steady trend doesn't count.
    """
    recent = values[-NOISE_WINDOW:]
    if len(recent) < 4 * lag:
        return 0.0
    threes = zip(recent, recent[lag:], recent[2 * lag :], strict=False)
    return PER_SIGMA * statistics.median(abs(a - 2 * b + c) for a, b, c in threes) / math.sqrt(6)


def error_of_difference(values: Sequence[float], n: int) -> float:
    """Return the standard error of the difference between the medians of two stretches of `n` of the `values`, if the
    noise is normal and independent."""
    return math.sqrt(math.pi / 2) * estimate_noise(values) * math.sqrt(2 / n)


def measure_fall(values: Sequence[float]) -> float:
    """Return how much `values` fell from their first fifth to their last, by medians; negative if they rose."""
    n = max(1, len(values) // 5)
    return statistics.median(values[:n]) - statistics.median(values[-n:])
