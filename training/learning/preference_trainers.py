"""TRL's trainers for DPO and KTO, adapted to rows of token ids. TRL computes the losses; see `preference`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

from training.config.config import TrainingConfig
from training.learning.exact_resume import ExactResumeMixin

Row = dict[str, Any]


class PreferenceTrainer(ExactResumeMixin):
    """Common differences from TRL: rows of ids, a reference that is computed once, no telemetry."""

    _tag_names: tuple[str, ...] = ()
    reference_columns: tuple[str, ...]
    """Columns with the reference log-probabilities, in the order of TRL's `compute_ref_log_probs`."""
    accelerator: Any
    data_collator: Any
    processing_class: Any
    compute_ref_log_probs: Any
    _metrics: Any

    def __init__(self, **arguments: Any) -> None:
        self.hits = self.learned_tokens = self.tokens = 0
        """As counted by `TokenTrainer` since the start of the process; a preference run predicts no tokens."""
        self._references: dict[tuple[Any, ...], Row] = {}
        super().__init__(**arguments)
        if "ref" in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter("ref")  # TRL's copy of the initial adapter: we need only its numbers
        self.processing_class = None  # with a tokenizer, `train` would write its special tokens to the model's config
        self.precompute_ref_logps = True
        if not self.args.precompute_ref_log_probs:
            self.train_dataset = self._precompute_ref_logps(
                self.train_dataset, "train", self.args.per_device_train_batch_size
            )

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return TRL's loss of one batch; in training its tokens are counted."""
        if model.training:
            tokens = int(inputs["attention_mask"].sum())
            self.tokens += tokens
            self.state.num_input_tokens_seen += tokens  # kept in checkpoints
        loss: torch.Tensor = super().compute_loss(model, inputs, False, num_items_in_batch)  # type: ignore[misc]
        return loss

    def add_reference(self, rows: list[Row]) -> list[Row]:
        """Return `rows` with their reference log-probabilities, cached from when they were first seen.

        Raises:
            ValueError: they are new, and the model has been trained already.
        """
        if not all(_row_key(row) in self._references for row in rows):
            if self.state.global_step > 0:
                raise ValueError(
                    "These rows weren't measured before training, and the initial model is no longer "
                    "available. Measure them once before training."
                )
            found = self._compute_reference(rows)
            self._references |= {_row_key(row): start for row, start in zip(rows, found, strict=True)}
        return [row | self._references[_row_key(row)] for row in rows]

    def measure_rows(self, rows: list[Row]) -> dict[str, float]:
        """Return the loss of `rows`, which have their reference, and TRL's logged values, by TRL's names."""
        self._metrics["eval"].clear()
        with self.accelerator.autocast():
            loss = self.compute_loss(self.model, self._to_device(self.data_collator(rows)))
        found = {name: float(values[-1]) for name, values in self._metrics["eval"].items() if values}
        self._metrics["eval"].clear()
        return {**found, "loss": float(loss)}

    def _compute_reference(self, rows: list[Row]) -> list[Row]:
        """Return for each of `rows` its log-probabilities under the current model, by the names that TRL reads."""
        batch = self._to_device(self.data_collator(rows))
        # With a reference model set, TRL leaves the adapter on; otherwise it would turn it off, or use its own copy.
        self.ref_model = self.model
        found = self.compute_ref_log_probs(self.model, batch)
        self.ref_model = None
        columns = [values.float().tolist() for values in found]
        return [dict(zip(self.reference_columns, values, strict=True)) for values in zip(*columns, strict=True)]

    def _to_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: values.to(self.accelerator.device) for name, values in batch.items()}

    def _prepare_dataset(self, dataset: Dataset, *arguments: Any) -> Dataset:
        return dataset

    @torch.no_grad()
    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        was_training = self.model.training
        self.model.eval()
        starts = [
            start for batch in make_batches(dataset.to_list(), batch_size) for start in self._compute_reference(batch)
        ]
        self.model.train(was_training)
        return concatenate_datasets([dataset, Dataset.from_list(starts)], axis=1)

    def _send_telemetry(self) -> None:
        """Send nothing."""

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """Write nothing: a run has its own record."""


class PairTrainer(PreferenceTrainer, DPOTrainer):  # type: ignore[misc]
    """DPO."""

    collator = DataCollatorForPreference
    reference_columns = ("ref_chosen_logps", "ref_rejected_logps")

    @staticmethod
    def arguments(config: TrainingConfig, common: dict[str, Any]) -> DPOConfig:
        """Return TRL's arguments: the `common` ones and those of the method."""
        return DPOConfig(
            **common,
            loss_type=[config.loss_type],
            label_smoothing=config.label_smoothing,
            train_sampling_strategy="group_by_length",
        )

    @staticmethod
    def encode_rows(rendered: Sequence[Any], batch_size: int) -> list[Row]:
        """Make a row for each `RenderedPreference`."""
        return [
            {
                "prompt_ids": row.prompt_ids,
                "chosen_ids": row.chosen_ids,
                "rejected_ids": row.rejected_ids,
                "length": len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids)),
            }
            for row in rendered
        ]


class LabelTrainer(PreferenceTrainer, KTOTrainer):  # type: ignore[misc]
    """KTO."""

    collator = DataCollatorForUnpairedPreference
    reference_columns = ("ref_logps", "ref_KL_logps")

    @staticmethod
    def arguments(config: TrainingConfig, common: dict[str, Any]) -> KTOConfig:
        """Return TRL's arguments: the `common` ones and those of the method."""
        return KTOConfig(
            **common,
            desirable_weight=config.desirable_weight,
            undesirable_weight=config.undesirable_weight,
            train_sampling_strategy="sequential",  # the mismatched answers belong to their batch
        )

    @staticmethod
    def encode_rows(rendered: Sequence[Any], batch_size: int) -> list[Row]:
        """Make a row for each `RenderedLabelled`, with another's answer, from which KTO estimates the model's drift.

        It is the answer of the row before it in its batch of `batch_size`, the last one's for the first, as in TRL.
        A last batch of one takes the row before it; with its own answer, as in TRL, its loss would be constant.
        """
        rows: list[Row] = []
        for start in range(0, len(rendered), batch_size):
            batch = rendered[start : start + batch_size]
            before = [rendered[start - 1] if len(batch) == 1 else batch[-1], *batch[:-1]]
            rows += [
                {
                    "prompt_ids": row.prompt_ids,
                    "completion_ids": row.completion_ids,
                    "KL_completion_ids": other.completion_ids,
                    "label": row.label,
                }
                for row, other in zip(batch, before, strict=True)
            ]
        return rows


def make_batches(rows: list[Row], size: int) -> Iterator[list[Row]]:
    """Yield `rows` in order, `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _row_key(row: Row) -> tuple[Any, ...]:
    return tuple(tuple(ids) for name, ids in row.items() if name.endswith("_ids"))
