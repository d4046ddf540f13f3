"""Resolves `gradient_checkpointing: auto`: on if a run isn't expected to fit without it. Imports no torch."""

from __future__ import annotations

import dataclasses

from training.config.config import TrainingConfig
from training.preflight.memory import estimate_memory, least_batch, memory_limit
from training.preflight.model_shape import ModelShape

_GB = 1e9


def resolve_checkpointing(
    config: TrainingConfig,
    shape: ModelShape | None,
    *,
    free_bytes: float | None,
    on_gpu: bool,
    longest_tokens: int | None = None,
) -> tuple[TrainingConfig, str | None]:
    """Resolve `gradient_checkpointing: auto` in `config`; return it and a sentence with value and reason.

    A smaller batch comes first, as it costs less time. So what counts is whether the smallest possible batch fits.

    Args:
        shape: None for a base with unknown sizes.
        free_bytes: memory available to the run; None if unknown.
        longest_tokens: of the training rows. Default: `max_length`.
    """
    if config.gradient_checkpointing != "auto":
        return config, None
    chosen, why = _choose(config, shape, free_bytes, on_gpu, longest_tokens or config.max_length)
    sentence = f"`gradient_checkpointing` {str(chosen).lower()}: {why}."
    return dataclasses.replace(config, gradient_checkpointing=chosen), sentence


def can_checkpoint(config: TrainingConfig) -> bool:
    """Return whether activations can be recomputed: not with prefix tuning, whose cache is dropped then."""
    return config.finetuning_type != "prefix_tuning"


def _choose(
    config: TrainingConfig, shape: ModelShape | None, free_bytes: float | None, on_gpu: bool, longest: int
) -> tuple[bool, str]:
    if not can_checkpoint(config):
        return False, "it drops the cache that `prefix_tuning` needs"
    limit = memory_limit(config, free_bytes)
    if shape is None or limit is None:
        return False, "the required or the available memory is unknown"
    without = dataclasses.replace(config, gradient_checkpointing=False)
    need = estimate_memory(shape, without, least_batch(config), longest, on_gpu).total
    return need > limit, f"without it the run is expected to need at least {need / _GB:.2f} of {limit / _GB:.2f} GB"
