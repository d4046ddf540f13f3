"""Estimates the speed of a run from the base's size and the CPU's matrix multiplication speed."""

from __future__ import annotations

import time

import torch

from training.config.config import TrainingConfig
from training.preflight.model_shape import ModelShape

_SIDE = 768
"""Rows and columns of the matrices in the speed measurement."""
_SHARE_OF_PEAK = {"nf4": 0.75, "none": 1.3}
"""Speed of a run relative to that of the products below; see `docs/preflight.md` for the runs it was measured on."""
_WORK_PER_WEIGHT = 4
"""Operations per token and frozen weight: two forward, two for the gradient that is passed on."""
_WORK_PER_TRAINED_WEIGHT = 6
"""Plus two for the gradient of the weight itself, if all are trained."""


def measure_flops(seconds: float = 0.3) -> float:
    """Measure the operations per second of float32 matrix products on this CPU, with as many threads as a run has."""
    matrix = torch.ones(_SIDE, _SIDE)
    matrix @ matrix
    started, products, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds:
        matrix @ matrix
        products += 1
        elapsed = time.perf_counter() - started
    return products * 2 * _SIDE**3 / elapsed


def estimate_tokens_per_second(shape: ModelShape, config: TrainingConfig, flops: float) -> float:
    """Estimate the tokens per second that a run trains on, on a CPU with `flops` operations per second."""
    work = _WORK_PER_TRAINED_WEIGHT if config.finetuning_type == "full" else _WORK_PER_WEIGHT
    if config.gradient_checkpointing is True:
        work += 2
    if config.method in ("dpo", "kto"):
        work += 2  # the reference model is evaluated as well
    return flops * _SHARE_OF_PEAK[config.quantization] / (work * active_parameters(shape))


def active_parameters(shape: ModelShape) -> int:
    """Return the weights used per token: of a mixture only the active experts, without the embedding."""
    experts = max(1, shape.experts_per_token)
    block = sum(linear.inputs * linear.outputs * (experts if linear.count > 1 else 1) for linear in shape.linears)
    return block * shape.n_layers + shape.vocab_size * shape.hidden_size
