"""Trains the embedded base model from random weights: optimizers and training loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

IGNORED = -100
"""Label of a token that isn't trained on."""


@dataclass(frozen=True)
class Schedule:
    """The training schedule of the embedded base."""

    tokens_per_batch: int = 1024
    """Tokens per step, including padding. Small, because on a CPU the number of steps matters most."""
    matrix_learning_rate: float = 0.02
    """Of the layers' matrices, by Muon."""
    other_learning_rate: float = 0.01
    """Of embeddings and norms, by AdamW."""
    warmup_steps: int = 20
    decay_share: float = 0.5
    """Share of the steps, at the end, over which the learning rates decay to almost zero."""
    seed: int = 1


@dataclass(frozen=True)
class Tokens:
    """One tokenised chat."""

    input_ids: Sequence[int]
    labels: Sequence[int]
    """The ids again, `IGNORED` in turns of user and system."""


def train(
    model: LlamaForCausalLM, chats: Sequence[Tokens], schedule: Schedule, on_step: Callable[[int, int, float], None]
) -> None:
    """Train `model` in place, one pass over `chats`; call `on_step(step, total_steps, loss)` after each step."""
    batches = _make_batches(chats, schedule.tokens_per_batch)
    random.Random(schedule.seed).shuffle(batches)
    optimizers = _make_optimizers(model, schedule)
    model.train()
    for step, batch in enumerate(batches):
        input_ids, labels = _pad_batch(batch)
        loss = _compute_loss(model, input_ids, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        factor = _rate_factor(step, len(batches), schedule)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak_lr"]
            optimizer.step()
            optimizer.zero_grad()
        on_step(step + 1, len(batches), loss.item())


@torch.no_grad()
def check_answers(model: LlamaForCausalLM, chats: Sequence[Tokens]) -> list[bool]:
    """Return for each chat whether greedy decoding gives its answer to the last token, end of turn included.

    Every label is the likeliest token given the right ones before it, which is what greedy decoding would choose.
    """
    model.eval()
    right = {}
    for batch in _make_batches(chats, 8192):
        input_ids, labels = _pad_batch(batch)  # both [chats, tokens]
        guesses = model(input_ids=input_ids).logits[:, :-1].argmax(-1)
        hits = (guesses == labels[:, 1:]) | (labels[:, 1:] == IGNORED)
        right.update({id(chat): hit for chat, hit in zip(batch, hits.all(dim=1).tolist(), strict=True)})
    return [right[id(chat)] for chat in chats]


def _compute_loss(model: LlamaForCausalLM, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy over the trained tokens; only these, a third, go through the output layer."""
    hidden = model.model(input_ids=input_ids).last_hidden_state[:, :-1]  # [chats, tokens - 1, hidden]
    targets = labels[:, 1:]
    learned = targets != IGNORED
    return F.cross_entropy(model.lm_head(hidden[learned]), targets[learned])


def _make_batches(chats: Sequence[Tokens], tokens_per_batch: int) -> list[list[Tokens]]:
    """Batch chats of similar length, to minimise padding."""
    batches: list[list[Tokens]] = [[]]
    for chat in sorted(chats, key=lambda chat: len(chat.input_ids)):
        if batches[-1] and (len(batches[-1]) + 1) * len(chat.input_ids) > tokens_per_batch:
            batches.append([])
        batches[-1].append(chat)
    return batches


def _pad_batch(batch: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input ids and labels, right-padded, int64 [chats, tokens]. No attention mask: nothing attends to a pad."""
    width = max(len(chat.input_ids) for chat in batch)
    input_ids = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), IGNORED, dtype=torch.long)
    for row, chat in enumerate(batch):
        input_ids[row, : len(chat.input_ids)] = torch.tensor(chat.input_ids)
        labels[row, : len(chat.labels)] = torch.tensor(chat.labels)
    return input_ids, labels


def _rate_factor(step: int, total_steps: int, schedule: Schedule) -> float:
    rising = (step + 1) / schedule.warmup_steps
    falling = (total_steps - step) / (schedule.decay_share * total_steps)
    return min(1.0, rising) * max(0.02, min(1.0, falling))


def _make_optimizers(model: LlamaForCausalLM, schedule: Schedule) -> list[torch.optim.Optimizer]:
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    optimizers = [
        Muon(matrices, schedule.matrix_learning_rate),
        torch.optim.AdamW(others, lr=schedule.other_learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


class Muon(torch.optim.Optimizer):
    """Momentum whose update is replaced by the nearest orthogonal matrix (https://kellerjordan.github.io/posts/muon/).

    In the same 420 steps an early recipe learned 98 % of its questions with it, five iterations a step, and 62 % with
    AdamW at one learning rate (3e-3), in 112 s of both cores against 62 s. torch.optim.Muon iterates in bfloat16, which
    is slow on CPUs without such instructions; this one stays in float32.
    """

    COEFFICIENTS = ((8.2872, -23.5959, 17.3004), (4.1071, -2.9478, 0.5448), (3.9487, -2.9089, 0.5518))
    """Three iterations instead of the usual five, for speed; from Polar Express, https://arxiv.org/abs/2505.16932."""
    MOMENTUM = 0.95
    WEIGHT_DECAY = 0.1

    def __init__(self, matrices: Iterable[torch.nn.Parameter], learning_rate: float) -> None:
        by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for matrix in matrices:
            by_shape.setdefault(matrix.shape, []).append(matrix)
        super().__init__([{"params": same} for same in by_shape.values()], {"lr": learning_rate})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix once; `closure` is not used."""
        for group in self.param_groups:
            matrices = group["params"]
            gradients = torch.stack([matrix.grad for matrix in matrices])  # [matrices, out, in]
            momentum = self.state[matrices[0]].setdefault("momentum", torch.zeros_like(gradients))
            momentum.lerp_(gradients, 1 - self.MOMENTUM)
            updates = _orthogonalize(gradients.lerp(momentum, self.MOMENTUM), self.COEFFICIENTS)
            rows, columns = gradients.shape[1:]
            scale = group["lr"] * max(1.0, rows / columns) ** 0.5
            for matrix, update in zip(matrices, updates, strict=True):
                matrix.mul_(1 - group["lr"] * self.WEIGHT_DECAY).add_(update, alpha=-scale)


def _orthogonalize(matrices: torch.Tensor, coefficients: Iterable[tuple[float, float, float]]) -> torch.Tensor:
    """Approximate the nearest semi-orthogonal matrix to each of `matrices` [n, rows, columns]."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: torch.Tensor = x.mT if tall else x
    return orthogonal
