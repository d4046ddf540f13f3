"""Works out what `auto` means, and how many steps that makes, by rules that are written down. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run's schedule, every `auto` replaced by a number."""

    n_epochs: int
    """Passes over the training rows."""
    batch_size: int
    """Rows in one forward pass."""
    gradient_accumulation_steps: int
    """Forward passes per optimizer step."""
    learning_rate: float
    """Peak step size of the optimizer."""
    steps_per_epoch: int
    """Optimizer steps in one pass."""
    total_steps: int
    """Optimizer steps of the whole run."""
    warmup_steps: int
    """Steps over which the learning rate rises."""
    eval_steps: int
    """Steps between two validations."""
    save_steps: int
    """Steps between two checkpoints."""
    reasons: tuple[str, ...] = ()
    """One sentence for each value that `auto` chose: the value and why."""


def make_plan(
    config: TrainingConfig, *, n_rows: int, mean_tokens: float, n_parameters: int, on_gpu: bool
) -> Plan:
    """The schedule that `config` means for `n_rows` training rows of `mean_tokens` tokens on average.

    Args:
        n_parameters: of the base model, all of them.
    """
    batch_size = 8 if config.batch_size == "auto" else config.batch_size
    n_epochs = 3 if config.n_epochs == "auto" else config.n_epochs
    learning_rate = 2e-4 if config.learning_rate == "auto" else config.learning_rate
    steps_per_epoch = math.ceil(n_rows / (batch_size * config.gradient_accumulation_steps))
    total_steps = config.max_steps or steps_per_epoch * n_epochs
    return Plan(
        n_epochs=n_epochs,
        batch_size=batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=learning_rate,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        warmup_steps=round(config.warmup_ratio * total_steps),
        eval_steps=max(1, total_steps // 4) if config.eval_steps == "auto" else config.eval_steps,
        save_steps=steps_per_epoch if config.save_steps == "auto" else config.save_steps,
    )
