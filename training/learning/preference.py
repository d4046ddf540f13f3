"""Training on better and worse answers: DPO on pairs, KTO on good and bad ones.

Our rows are token ids already, and each answer's likelihood under the reference model is computed once, before the
first step. So no second model or adapter is in memory while training, and a checkpoint contains just the trained one;
a resumed run computes the same numbers again, from the same reference. The cost: in 16 bit, a batch's padding changes a
likelihood slightly, so that the first training loss isn't quite what it should be (0.683 instead of 0.693 was seen for
answers of 200 tokens). In float32 it is.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from peft.tuners.tuners_utils import BaseTunerLayer

from training.config.auto import Plan
from training.config.config import ConfigError, TrainingConfig
from training.learning.preference_trainers import LabelTrainer, PairTrainer, Row, make_batches
from training.learning.trainer import remove_printers, training_arguments, use_one_gpu
from training.model.base import Base
from training.model.layers import BaseModelError

if TYPE_CHECKING:
    from training.rendering.render import RenderedLabelled, RenderedPreference

    PreferenceRows = Sequence[RenderedPreference] | Sequence[RenderedLabelled]


@dataclass(frozen=True)
class PreferenceMeasurement:
    """How well a model orders answers, compared with the reference model."""

    loss: float
    """Mean of the method's loss over the rows."""
    reward_margin: float | None
    """Mean reward of the better answers minus that of the worse, in nats times `beta`; 0 before training. None for
    `kto` where the rows are all good or all bad."""
    reward_accuracy: float | None
    """Share, 0 to 1, of the pairs whose better answer has the higher reward. None before the first step, when all
    rewards are 0, and for `kto`, which has no pairs."""


def make_preference_trainer(
    config: TrainingConfig, plan: Plan, base: Base, training: PreferenceRows, checkpoints: Path
) -> PairTrainer | LabelTrainer:
    """Make the trainer for `config.method`; the reference model is `base` as it is now.

    `dpo`: https://arxiv.org/abs/2305.18290, for pairs. `kto`: https://arxiv.org/abs/2402.01306, for labelled answers.

    Raises:
        ConfigError: `kto` with one row at a time.
        BaseModelError: an adapter on the output layer, through which TRL's losses don't go.
    """
    _check_settings(config, plan, base)
    kind = PairTrainer if config.method == "dpo" else LabelTrainer
    rows = kind.encode_rows(training if config.method == "dpo" else _shuffle(training, config), plan.batch_size)
    arguments = training_arguments(config, plan, base, checkpoints) | {
        "beta": config.beta,
        "max_length": config.max_length,
        "disable_dropout": config.lora_dropout == 0,  # otherwise the requested dropout stays on
        "router_aux_loss_coef": 0.0,  # routers aren't trained
        # Without an adapter it keeps TRL from loading a second model, at the price of hashing the first.
        "precompute_ref_log_probs": base.kind == "full",
    }
    with _preserve(base):
        trainer = kind(
            model=base.model,
            args=use_one_gpu(kind.arguments(config, arguments)),
            data_collator=kind.collator(base.pad_token_id, config.max_length),
            train_dataset=Dataset.from_list(rows),
            processing_class=_padded_tokenizer(base),
        )
    remove_printers(trainer)
    return trainer


@torch.no_grad()
def measure_preferences(
    trainer: PairTrainer | LabelTrainer, rows: PreferenceRows, config: TrainingConfig
) -> PreferenceMeasurement:
    """Measure how well the model of `trainer` orders the answers of `rows`; restores its training mode.

    Rows must be measured once before training: that is when their reference likelihoods are computed.

    Raises:
        ValueError: they weren't.
    """
    batch_size = trainer.args.per_device_train_batch_size
    model, was_training = trainer.model, trainer.model.training
    model.eval()
    total = _Means()
    for batch in make_batches(trainer.encode_rows(rows, batch_size), batch_size):
        total.add(trainer.measure_rows(trainer.add_reference(batch)), batch)
    model.train(was_training)
    return total.measurement(config, is_trained=trainer.state.global_step > 0)


class _Means:
    """Means over batches, each weighted by the number of rows that it covers."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._rows: dict[str, int] = {}

    def add(self, found: dict[str, float], batch: list[Row]) -> None:
        """Add the values `found` for `batch`."""
        good = sum(bool(row.get("label")) for row in batch)
        weights = dict.fromkeys(("loss", "rewards/margins", "rewards/accuracies"), len(batch))
        for name, count in {**weights, "rewards/chosen": good, "rewards/rejected": len(batch) - good}.items():
            if name in found and count:
                self._sums[name] = self._sums.get(name, 0.0) + found[name] * count
                self._rows[name] = self._rows.get(name, 0) + count

    def measurement(self, config: TrainingConfig, *, is_trained: bool) -> PreferenceMeasurement:
        """Return the means, as far as they are meaningful."""
        loss = self._sums["loss"] / self._rows["loss"]
        if config.method == "dpo":
            accuracy = self._mean("rewards/accuracies") if is_trained else None
            return PreferenceMeasurement(loss, self._mean("rewards/margins"), accuracy)
        good, bad = self._mean("rewards/chosen"), self._mean("rewards/rejected")
        return PreferenceMeasurement(loss, None if good is None or bad is None else good - bad, None)

    def _mean(self, name: str) -> float | None:
        return self._sums[name] / self._rows[name] if self._rows.get(name) else None


@contextmanager
def _preserve(base: Base) -> Iterator[None]:
    """Undo what TRL changes: trained weights beside a 4-bit base would become bfloat16, where small steps are lost, and
    the tokenizer's padding token would be written to the model's configuration."""
    weights = {parameter: parameter.data for parameter in base.model.parameters() if parameter.requires_grad}
    configs = (base.model.config.get_text_config(), base.model.generation_config)
    padding = [config.pad_token_id for config in configs]
    yield
    for parameter, values in weights.items():
        parameter.data = values
    for config, pad_token_id in zip(configs, padding, strict=True):
        config.pad_token_id = pad_token_id


def _check_settings(config: TrainingConfig, plan: Plan, base: Base) -> None:
    if config.method == "kto" and plan.batch_size < 2:
        raise ConfigError(
            ["`batch_size` is 1, but `kto` compares each example with another one in its batch. Set it to 2 or more."],
            param="batch_size",
        )
    if isinstance(base.model.get_output_embeddings(), BaseTunerLayer):
        raise BaseModelError(
            f"`target_modules` includes the output layer, which `{config.method}` can't train. Leave it out, or use "
            "`modules_to_save` for it.",
            param="target_modules",
        )


def _shuffle(rows: Sequence[Any], config: TrainingConfig) -> list[Any]:
    """Shuffle the rows: KTO processes them in sequence."""
    return random.Random(config.seed).sample(list(rows), len(rows))


def _padded_tokenizer(base: Base) -> Any:
    """Return a copy of the base's tokenizer with the padding token that we use."""
    tokenizer = copy.copy(base.tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(base.pad_token_id)
    return tokenizer
