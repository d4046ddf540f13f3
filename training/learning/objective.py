"""The objective of a run and its measurement: predicting tokens, or preferring better answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import Trainer

from training.config.auto import Plan
from training.config.config import TrainingConfig
from training.learning.batches import Measurement, Padding, measure
from training.learning.rows import Rows
from training.learning.trainer import make_trainer
from training.model.base import Base


@dataclass(frozen=True)
class Objective:
    """A trainer, and its measurement on the validation rows."""

    trainer: Trainer
    measure: Callable[[], Measurement] | None
    """None without validation rows."""


def make_objective(
    config: TrainingConfig, plan: Plan, base: Base, training: Rows, validation: Rows, checkpoints: Path
) -> Objective:
    """Make the objective for `config.method`."""
    if config.method in ("dpo", "kto"):
        # Loads TRL, which takes more than a second; other methods don't need it.
        from training.learning.preference import make_preference_trainer, measure_preferences

        preference = make_preference_trainer(config, plan, base, training.rows, checkpoints)

        def measure_order() -> Measurement:
            measured = measure_preferences(preference, validation.rows, config)
            return Measurement(
                measured.loss, reward_margin=measured.reward_margin, reward_accuracy=measured.reward_accuracy
            )

        return Objective(preference, measure_order if validation.rows else None)
    trainer = make_trainer(config, plan, base, training.rows, checkpoints)
    padding = Padding(base.pad_token_id)

    def measure_tokens() -> Measurement:
        return measure(base.model, trainer.loss_of, validation.rows, padding, plan.batch_size)

    return Objective(trainer, measure_tokens if validation.rows else None)
