"""What `gradient_checkpointing: auto` comes to: on where a run isn't expected to fit without it. Imports no torch."""

from __future__ import annotations

import dataclasses

from training.config.config import TrainingConfig
from training.preflight.memory import estimate_memory, least_batch, memory_limit
from training.preflight.model_shape import ModelShape

_GB = 1e9


def with_checkpointing(
    config: TrainingConfig,
    shape: ModelShape | None,
    *,
    free_bytes: float | None,
    on_gpu: bool,
    longest_tokens: int | None = None,
) -> tuple[TrainingConfig, str | None]:
    """`config` with `gradient_checkpointing` true or false where it is `auto`, and a sentence with the value and why.

    A smaller batch comes first: it costs less time. So what counts is whether the fewest rows fit that a pass may have.

    Args:
        shape: None for a base that doesn't say its sizes.
        free_bytes: memory that the run can have; None when that isn't known.
        longest_tokens: of the training rows. Default: `max_length`.
    """
    if config.gradient_checkpointing != "auto":
        return config, None
    chosen, why = _chosen(config, shape, free_bytes, on_gpu, longest_tokens or config.max_length)
    sentence = f"`gradient_checkpointing` {str(chosen).lower()}: {why}."
    return dataclasses.replace(config, gradient_checkpointing=chosen), sentence


def can_checkpoint(config: TrainingConfig) -> bool:
    """Whether activations may be computed twice: prefix tuning works through a cache that is dropped then."""
    return config.finetuning_type != "prefix_tuning"


def _chosen(
    config: TrainingConfig, shape: ModelShape | None, free_bytes: float | None, on_gpu: bool, longest: int
) -> tuple[bool, str]:
    if not can_checkpoint(config):
        return False, "it drops the cache that `prefix_tuning` works through"
    limit = memory_limit(config, free_bytes)
    if shape is None or limit is None:
        return False, "it isn't known how much memory the run takes, or how much there is"
    without = dataclasses.replace(config, gradient_checkpointing=False)
    need = estimate_memory(shape, without, least_batch(config), longest, on_gpu).total
    return need > limit, f"without it the run is expected to take at least {need / _GB:.2f} of {limit / _GB:.2f} GB"
