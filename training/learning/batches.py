"""Rows of token ids as padded tensors, and the measurement of a model's predictions on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.learning.token_loss import LossFunction
from training.rendering.render import IGNORED, Rendered

Batch = dict[str, torch.Tensor]
Row = dict[str, list[int]]
"""input_ids and labels, both as long as the row; for a packed row position_ids, too."""


@dataclass(frozen=True)
class Measurement:
    """A model's performance on examples that it isn't trained on."""

    loss: float
    """Mean cross-entropy per trained token, in nats; in a preference run the mean of its own loss."""
    accuracy: float | None = None
    """Share of the trained tokens that were the most likely; None for a preference run."""
    reward_margin: float | None = None
    """In a preference run: how much more the better answers are favoured than at the start."""
    reward_accuracy: float | None = None
    """In a preference run: share of the pairs whose better answer is favoured."""

    @property
    def perplexity(self) -> float | None:
        """e to the loss, infinite where that overflows; None for a preference run."""
        if self.accuracy is None:
            return None
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True)
class Padding:
    """Pads a batch of rows to the longest, on the right."""

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Return int64 [rows, tokens]: input_ids, labels, and attention_mask, or position_ids for packed rows."""
        width = max(len(row["input_ids"]) for row in rows)
        batch = {
            "input_ids": _pad(rows, "input_ids", width, self.pad_token_id),
            "labels": _pad(rows, "labels", width, IGNORED),
        }
        if "position_ids" in rows[0]:
            # A padding token at position 0 is an example of its own, invisible to the others.
            return {**batch, "position_ids": _pad(rows, "position_ids", width, 0)}
        ones = [{"attention_mask": [1] * len(row["input_ids"])} for row in rows]
        return {**batch, "attention_mask": _pad(ones, "attention_mask", width, 0)}


def _pad(rows: Sequence[Mapping[str, Any]], name: str, width: int, filler: int) -> torch.Tensor:
    return torch.tensor([row[name] + [filler] * (width - len(row[name])) for row in rows])


def to_rows(rendered: Sequence[Rendered]) -> list[Row]:
    """Return the input of `Padding`, one for each example."""
    return [{"input_ids": row.input_ids, "labels": row.labels} for row in rendered]


@torch.no_grad()
def measure(model: Any, loss_of: LossFunction, rows: Sequence[Row], padding: Padding, batch_size: int) -> Measurement:
    """Measure how well `model` predicts `rows`; restores its training mode."""
    was_training = model.training
    model.eval()
    total, hits, learned = 0.0, 0, 0
    for batch in _batch_by_length(rows, padding, batch_size):
        loss = loss_of({name: values.to(model.device) for name, values in batch.items()})
        total, hits, learned = total + loss.total.item(), hits + loss.hits, learned + loss.learned
    model.train(was_training)
    return Measurement(total / learned, hits / learned)


def _batch_by_length(rows: Sequence[Row], padding: Padding, batch_size: int) -> Iterator[Batch]:
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]), reverse=True)
    for start in range(0, len(ordered), batch_size):
        yield padding(ordered[start : start + batch_size])
