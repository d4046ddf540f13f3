"""About how fast a run will be, from the base's size and what this processor multiplies."""

from __future__ import annotations

import time

import torch

from training.config.config import TrainingConfig
from training.preflight.model_shape import ModelShape

_SIDE = 768
"""Rows and columns of the matrices that are multiplied to see how fast the processor is."""
_SHARE_OF_PEAK = {"nf4": 0.75, "none": 1.3}
"""Speed of a run as a share of that of the products below; see `docs/preflight.md` for the runs it was measured on."""
_WORK_PER_WEIGHT = 4
"""Operations per token and frozen weight: two forward, two for the gradient that is passed down."""
_WORK_PER_TRAINED_WEIGHT = 6
"""And two for the gradient of the weight itself, where all are trained."""


def processor_flops(seconds: float = 0.3) -> float:
    """Operations per second in float32 matrix products on this processor, with as many threads as a run has."""
    matrix = torch.ones(_SIDE, _SIDE)
    matrix @ matrix
    started, products, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds:
        matrix @ matrix
        products += 1
        elapsed = time.perf_counter() - started
    return products * 2 * _SIDE**3 / elapsed


def tokens_per_second(shape: ModelShape, config: TrainingConfig, flops: float) -> float:
    """About how many tokens a run learns from in a second, on a processor of `flops` operations per second."""
    work = _WORK_PER_TRAINED_WEIGHT if config.finetuning_type == "full" else _WORK_PER_WEIGHT
    if config.gradient_checkpointing is True:
        work += 2
    if config.method in ("dpo", "kto"):
        work += 2  # the model that it starts from is asked as well
    return flops * _SHARE_OF_PEAK[config.quantization] / (work * active_parameters(shape))


def active_parameters(shape: ModelShape) -> int:
    """Weights that each token is multiplied with: of a mixture only the experts that it goes through, no embedding."""
    experts = max(1, shape.experts_per_token)
    block = sum(linear.inputs * linear.outputs * (experts if linear.count > 1 else 1) for linear in shape.linears)
    return block * shape.n_layers + shape.vocab_size * shape.hidden_size
