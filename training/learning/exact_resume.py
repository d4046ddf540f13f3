"""Resuming from a checkpoint with exactly the result of an uninterrupted run. A mixin for trainers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

TRAINED = "trained.safetensors"


class ExactResumeMixin:
    """A Trainer whose checkpoints contain all trained weights, and whose row order depends only on seed and epoch.

    Name it before the Trainer among the bases. It fixes two things:

    - transformers draws an epoch's order, when grouping by length, from the global generator. A run that resumes in the
      middle of its second epoch, or of a later one, would draw another order than the uninterrupted run.
    - Of prefix and P-tuning PEFT saves only the vectors, and loads them as the inputs of the network that generated
      them.
    """

    model: Any
    state: Any
    args: Any
    train_dataset: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(rows)  # type: ignore[misc]
        at_once = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return _LengthGroupedSampler(
            _row_lengths(rows), at_once, self.args.seed, lambda: int((self.state.epoch or 0) + 1e-6)
        )

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        if output_dir and _is_prompt_learning(self.model):
            trained = {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}
            weights = {name: parameter.detach().cpu().contiguous() for name, parameter in trained.items()}
            save_file(weights, Path(output_dir) / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not _is_prompt_learning(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, values in load_file(Path(resume_from_checkpoint) / TRAINED).items():
                parameters[name].copy_(values)


class _LengthGroupedSampler(Sampler[int]):
    """Groups rows of similar length; otherwise the order is drawn from the seed and the epoch."""

    def __init__(self, lengths: list[int], at_once: int, seed: int, epoch: Callable[[], int]) -> None:
        self._row_lengths, self._at_once, self._seed, self._epoch = lengths, at_once, seed, epoch

    def __len__(self) -> int:
        return len(self._row_lengths)

    def __iter__(self) -> Iterator[int]:
        order = torch.Generator().manual_seed(self._seed + self._epoch())
        return iter(get_length_grouped_indices(self._row_lengths, self._at_once, generator=order))


def _row_lengths(rows: Any) -> list[int]:
    """Return the tokens of each row: its `length` if there is one, else the number of its `input_ids`."""
    if "length" in getattr(rows, "column_names", ()):
        return list(rows["length"])
    sequence: Sequence[Any] = rows
    return [len(row["input_ids"]) for row in sequence]


def _is_prompt_learning(model: Any) -> bool:
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))
