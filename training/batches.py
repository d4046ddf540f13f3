"""Rendered examples as padded tensors, and how well a model predicts them. Knows no files and no optimiser."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from training.rendering import IGNORED, Rendered

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Measurement:
    """How well a model predicts the learned tokens of some examples."""

    loss: float
    """Mean cross-entropy per learned token, in nats."""
    accuracy: float
    """Share of the learned tokens that were the likeliest."""

    @property
    def perplexity(self) -> float:
        """e to the loss; infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True)
class Padding:
    """Makes a batch of examples as wide as its longest, on the right."""

    pad_token_id: int

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> Batch:
        """int64 input_ids, attention_mask and labels, each [examples, tokens]."""
        width = max(len(feature["input_ids"]) for feature in features)
        rows: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for feature in features:
            length = len(feature["input_ids"])
            padding = width - length
            rows["input_ids"].append(feature["input_ids"] + [self.pad_token_id] * padding)
            rows["attention_mask"].append([1] * length + [0] * padding)
            rows["labels"].append(feature["labels"] + [IGNORED] * padding)
        return {name: torch.tensor(values) for name, values in rows.items()}


def as_features(rendered: Sequence[Rendered]) -> list[dict[str, list[int]]]:
    """What `Padding` takes, one an example."""
    return [{"input_ids": one.input_ids, "labels": one.labels} for one in rendered]


def count_hits(logits: torch.Tensor, labels: torch.Tensor) -> tuple[int, int]:
    """(learned tokens that were the likeliest, learned tokens), of logits [examples, tokens, vocabulary]."""
    targets = labels[:, 1:]
    learned = targets != IGNORED
    hits = (logits[:, :-1].argmax(-1) == targets) & learned
    return int(hits.sum()), int(learned.sum())


@torch.no_grad()
def measure(model: Any, features: Sequence[dict[str, list[int]]], padding: Padding, batch_size: int) -> Measurement:
    """How well `model` predicts `features`; leaves it in the mode that it was in."""
    was_training = model.training
    model.eval()
    total_loss, hits, tokens = 0.0, 0, 0
    for batch in _by_length(features, padding, batch_size):
        batch = {name: values.to(model.device) for name, values in batch.items()}
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        targets = batch["labels"][:, 1:]
        losses = F.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        right, learned = count_hits(logits, batch["labels"])
        total_loss, hits, tokens = total_loss + losses.item(), hits + right, tokens + learned
    model.train(was_training)
    return Measurement(total_loss / tokens, hits / tokens)


def _by_length(features: Sequence[dict[str, list[int]]], padding: Padding, batch_size: int) -> Iterator[Batch]:
    ordered = sorted(features, key=lambda feature: len(feature["input_ids"]), reverse=True)
    for start in range(0, len(ordered), batch_size):
        yield padding(ordered[start : start + batch_size])
