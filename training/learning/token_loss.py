"""The loss on the trained tokens of a batch: cross-entropy, hits and gradients, with little memory.

Most tokens of a chat aren't trained on, and need no logits; the logits of the others are computed, used and dropped a
piece at a time. With a vocabulary of 150,000 they are most of what a small batch needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from training.rendering.render import IGNORED

PIECE_BYTES = 64 * 2**20
"""Size of the float32 logits in memory at a time."""
TOLERANCE = 1e-2
"""Largest relative difference from the model's own logits; bfloat16 alone causes a few thousandths."""


@dataclass(frozen=True)
class TokenLoss:
    """The cross-entropy of the trained tokens of one batch."""

    total: torch.Tensor
    """Sum over the trained tokens, in nats; a float32 scalar with gradient."""
    hits: int
    """Trained tokens that were the most likely."""
    learned: int
    """Number of trained tokens."""


class LossFunction:
    """Computes the `TokenLoss` of `model` for batches; chooses the method once.

    A plain output layer is applied to the trained positions only. For a model that does more to its logits (a scale, a
    cap) or needs its wrapper's forward (prefix and P-tuning) all logits are computed.
    """

    def __init__(self, model: Any, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self._model, self._autocast = model, autocast
        self._plain = has_plain_head(model)

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> TokenLoss:
        """Compute the loss of int64 input_ids and labels [rows, tokens], and attention_mask or position_ids."""
        inputs = {name: values for name, values in batch.items() if name != "labels"}
        targets = batch["labels"][:, 1:]
        learned = targets != IGNORED
        with self._autocast():
            if not self._plain:
                # Prompt learning puts virtual tokens before the row.
                logits = self._model(**inputs, use_cache=False).logits[:, -batch["labels"].shape[1] :]
                return _loss_from_logits(logits[:, :-1][learned], targets[learned])
            network = self._base_network()
            hidden = network.base_model(**inputs, use_cache=False).last_hidden_state
            head = network.get_output_embeddings()
            return _loss_from_hidden(hidden[:, :-1][learned], head, targets[learned])

    def _base_network(self) -> Any:
        return self._model.get_base_model() if hasattr(self._model, "get_base_model") else self._model


def has_plain_head(model: Any) -> bool:
    """Return whether the logits of `model` are just its output layer's, tested on four tokens."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = network.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or network.base_model is network:
        return False
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            probe = torch.arange(4, device=head.weight.device)[None]
            own = model(input_ids=probe, use_cache=False).logits.float()
            plain = head(network.base_model(input_ids=probe, use_cache=False).last_hidden_state).float()
    finally:
        model.train(was_training)
    return bool(torch.isfinite(own).all() and (own - plain).abs().max() <= TOLERANCE * own.abs().max())


def _loss_from_hidden(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> TokenLoss:
    """Compute the loss: hidden [learned, width], targets int64 [learned]."""
    if head.weight.requires_grad or (head.bias is not None and head.bias.requires_grad):
        return _loss_from_logits(head(hidden), targets)
    total, hits = _FrozenHead.apply(hidden, head.weight, head.bias, targets)  # type: ignore[no-untyped-call]
    return TokenLoss(total, int(hits), targets.numel())


def _loss_from_logits(logits: torch.Tensor, targets: torch.Tensor) -> TokenLoss:
    """Compute the loss: logits [learned, vocabulary], targets int64 [learned]."""
    total = F.cross_entropy(logits.float(), targets, reduction="sum")
    return TokenLoss(total, int((logits.argmax(-1) == targets).sum()), targets.numel())


class _FrozenHead(torch.autograd.Function):
    """Cross-entropy through an output layer that isn't trained, with one piece of its logits in memory at a time.

    The gradient for the hidden states is softmax minus one-hot, times the layer's weights; it is computed while the
    logits are in memory, so that they need not be computed again.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = max(1, PIECE_BYTES // (4 * weight.shape[0]))
        wants_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if wants_gradient else None
        total, hits = hidden.new_zeros((), dtype=torch.float32), targets.new_zeros(())
        for start in range(0, len(targets), rows):
            piece, wanted = hidden[start : start + rows], targets[start : start + rows]
            logits = F.linear(piece, weight, bias).float()
            hits += (logits.argmax(-1) == wanted).sum()
            log_probabilities = torch.log_softmax(logits, -1)
            total -= log_probabilities.gather(-1, wanted[:, None]).sum()
            if gradient is not None:
                slope = log_probabilities.exp_()
                slope[torch.arange(len(wanted), device=wanted.device), wanted] -= 1
                gradient[start : start + rows] = slope.to(weight.dtype) @ weight
        ctx.save_for_backward(*(() if gradient is None else (gradient,)))
        ctx.mark_non_differentiable(hits)
        return total, hits

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None, None
