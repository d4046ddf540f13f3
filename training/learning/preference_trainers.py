"""TRL's trainers for DPO and KTO, made to take rows of token ids. TRL computes the losses; see `preference`."""

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
from training.learning.exact_resume import ResumesExactly

Row = dict[str, Any]


class PreferenceTrainer(ResumesExactly):
    """What both do differently from TRL: rows of ids, a start that is worked out once, and no word to the outside."""

    _tag_names: tuple[str, ...] = ()
    start_columns: tuple[str, ...]
    """Columns with log-probabilities under the model at the start, in the order of TRL's `compute_ref_log_probs`."""
    accelerator: Any
    data_collator: Any
    processing_class: Any
    compute_ref_log_probs: Any
    _metrics: Any

    def __init__(self, **arguments: Any) -> None:
        self.hits = self.learned_tokens = self.tokens = 0
        """As `TokenTrainer` counts them since the start of the process; a preference run predicts no tokens."""
        self._starts: dict[tuple[Any, ...], Row] = {}
        super().__init__(**arguments)
        if "ref" in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter("ref")  # TRL's copy of the adapter at the start: we need only its numbers
        self.processing_class = None  # with a tokenizer, `train` would write its special tokens into the model's config
        self.precompute_ref_logps = True
        if not self.args.precompute_ref_log_probs:
            self.train_dataset = self._precompute_ref_logps(
                self.train_dataset, "train", self.args.per_device_train_batch_size
            )

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """TRL's loss of one batch; in training its tokens are counted."""
        if model.training:
            tokens = int(inputs["attention_mask"].sum())
            self.tokens += tokens
            self.state.num_input_tokens_seen += tokens  # kept in checkpoints
        loss: torch.Tensor = super().compute_loss(model, inputs, False, num_items_in_batch)  # type: ignore[misc]
        return loss

    def with_start(self, rows: list[Row]) -> list[Row]:
        """`rows` with their log-probabilities under the model at the start, kept from when they were first seen.

        Raises:
            ValueError: they are seen for the first time, and the model has been trained already.
        """
        if not all(_key(row) in self._starts for row in rows):
            if self.state.global_step > 0:
                raise ValueError(
                    "These rows are new, but the model at the start is gone. Measure them once before training."
                )
            found = self._start_of(rows)
            self._starts |= {_key(row): start for row, start in zip(rows, found, strict=True)}
        return [row | self._starts[_key(row)] for row in rows]

    def measured(self, rows: list[Row]) -> dict[str, float]:
        """The loss of `rows`, which have their start, and what TRL logs beside it, by TRL's names."""
        self._metrics["eval"].clear()
        with self.accelerator.autocast():
            loss = self.compute_loss(self.model, self._on_device(self.data_collator(rows)))
        found = {name: float(values[-1]) for name, values in self._metrics["eval"].items() if values}
        self._metrics["eval"].clear()
        return {**found, "loss": float(loss)}

    def _start_of(self, rows: list[Row]) -> list[Row]:
        """For each of `rows` its log-probabilities under the model as it is, by the names that TRL reads them under."""
        batch = self._on_device(self.data_collator(rows))
        # With a reference model named, TRL leaves the adapter on; else it would turn it off, or to its own copy.
        self.ref_model = self.model
        found = self.compute_ref_log_probs(self.model, batch)
        self.ref_model = None
        columns = [values.float().tolist() for values in found]
        return [dict(zip(self.start_columns, values, strict=True)) for values in zip(*columns, strict=True)]

    def _on_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: values.to(self.accelerator.device) for name, values in batch.items()}

    def _prepare_dataset(self, dataset: Dataset, *arguments: Any) -> Dataset:
        return dataset

    @torch.no_grad()
    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        was_training = self.model.training
        self.model.eval()
        starts = [start for batch in batches(dataset.to_list(), batch_size) for start in self._start_of(batch)]
        self.model.train(was_training)
        return concatenate_datasets([dataset, Dataset.from_list(starts)], axis=1)

    def _send_telemetry(self) -> None:
        """Nothing is sent."""

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """None is written: a run's record is its own."""


class PairTrainer(PreferenceTrainer, DPOTrainer):  # type: ignore[misc]
    """DPO."""

    collator = DataCollatorForPreference
    start_columns = ("ref_chosen_logps", "ref_rejected_logps")

    @staticmethod
    def arguments(config: TrainingConfig, common: dict[str, Any]) -> DPOConfig:
        """TRL's arguments: `common` ones and those of the method."""
        return DPOConfig(
            **common,
            loss_type=[config.loss_type],
            label_smoothing=config.label_smoothing,
            train_sampling_strategy="group_by_length",
        )

    @staticmethod
    def rows_of(rendered: Sequence[Any], batch_size: int) -> list[Row]:
        """A row for each `RenderedPreference`."""
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
    start_columns = ("ref_logps", "ref_KL_logps")

    @staticmethod
    def arguments(config: TrainingConfig, common: dict[str, Any]) -> KTOConfig:
        """TRL's arguments: `common` ones and those of the method."""
        return KTOConfig(
            **common,
            desirable_weight=config.desirable_weight,
            undesirable_weight=config.undesirable_weight,
            train_sampling_strategy="sequential",  # the mismatched answers belong to their batch
        )

    @staticmethod
    def rows_of(rendered: Sequence[Any], batch_size: int) -> list[Row]:
        """A row for each `RenderedLabelled`, with another's answer: from those KTO estimates how far the model moved.

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


def batches(rows: list[Row], size: int) -> Iterator[list[Row]]:
    """`rows` in their order, `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(tuple(ids) for name, ids in row.items() if name.endswith("_ids"))
