"""Plans the schedule of a run that fits into memory: `auto` of memory and time together. Imports no torch."""

from __future__ import annotations

import dataclasses

from training.config.auto import Plan, make_plan
from training.config.config import TrainingConfig
from training.preflight.checkpointing import resolve_checkpointing
from training.preflight.memory import largest_batch, memory_limit
from training.preflight.model_shape import ModelShape


def plan_run(
    config: TrainingConfig,
    shape: ModelShape | None,
    *,
    n_rows: int,
    mean_tokens: float,
    longest_tokens: int,
    n_parameters: int,
    on_gpu: bool,
    free_bytes: int | None,
) -> tuple[Plan, TrainingConfig]:
    """Like `make_plan`, with a batch and `gradient_checkpointing` for `free_bytes`; return `config` with these, too.

    Args:
        shape: None for a base with unknown sizes: then memory may run out in the run.
        longest_tokens: of the training rows.
        free_bytes: memory available to the run, the base included; None if unknown.
    """
    decided, reason = resolve_checkpointing(
        config, shape, free_bytes=free_bytes, on_gpu=on_gpu, longest_tokens=longest_tokens
    )
    limit = memory_limit(config, free_bytes)
    fitting = None if shape is None or limit is None else largest_batch(shape, decided, longest_tokens, on_gpu, limit)
    plan = make_plan(
        decided,
        n_rows=n_rows,
        mean_tokens=mean_tokens,
        n_parameters=n_parameters,
        on_gpu=on_gpu,
        largest_batch=fitting,
    )
    return dataclasses.replace(plan, reasons=(*plan.reasons, *filter(None, [reason]))), decided
