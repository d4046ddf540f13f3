"""Forecast of a run on some examples: its schedule, approximate time and memory, and why it would be refused. Loads no
weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training.config.auto import Plan
from training.config.config import ConfigError, TrainingConfig
from training.inspection.figures.data_figures import Figures, Lengths, Tokens
from training.inspection.forecast.speed import estimate_tokens_per_second, measure_flops
from training.preflight.memory import MemoryEstimate, estimate_memory
from training.preflight.model_shape import ModelShape
from training.preflight.planning import plan_run
from training.preflight.preflight import preflight
from training.process.memory import free_memory

START_S = 10.0
"""Seconds until a run has loaded its libraries and a small base."""


@dataclass(frozen=True)
class Forecast:
    """The forecast of one run."""

    training_rows: int
    """Rows to train on, without those held back."""
    plan: Plan
    memory: MemoryEstimate
    free_bytes: int | None
    """Free memory, the GPU's if there is one."""
    tokens_per_second: float | None
    """Approximate; None on a GPU, for which there are no measurements."""
    seconds: float | None
    """Approximate duration, without validations; None on a GPU."""
    refusals: tuple[str, ...]
    """Why it would be refused."""
    findings: tuple[str, ...]
    """What the user should know all the same."""
    trained_tokens: int
    """Approximate number of tokens processed in all steps."""


def forecast(found: Figures, config: TrainingConfig, shape: ModelShape) -> Forecast:
    """Forecast the run with `config` on the examples counted in `found`, on this machine as it is now.

    Raises:
        ValueError: `found` was counted without a tokenizer.
    """
    if found.tokens is None:
        raise ValueError("A forecast needs lengths in tokens. Count them with a tokenizer.")
    return forecast_figures(found.examples, found.lengths, found.tokens, config, shape)


def forecast_figures(
    examples: int,
    lengths: Lengths,
    tokens: Tokens,
    config: TrainingConfig,
    shape: ModelShape,
    *,
    free_bytes: int | None = None,
) -> Forecast:
    """Like `forecast`, for `examples` examples with these statistics.

    Args:
        free_bytes: memory available to the run. Default: what is free now.
    """
    on_gpu = torch.cuda.is_available()
    free = free_memory(on_gpu) if free_bytes is None else free_bytes
    rows = _training_rows(examples, lengths, tokens, config)
    mean = min(lengths.total / lengths.count, config.max_length)
    longest = min(lengths.longest, config.max_length)
    if config.packing or config.method == "text":
        mean, longest = float(config.max_length), config.max_length
    plan, config = plan_run(
        config,
        shape,
        n_rows=rows,
        mean_tokens=mean,
        longest_tokens=longest,
        n_parameters=shape.n_parameters,
        on_gpu=on_gpu,
        free_bytes=free,
    )
    refusals, findings = _run_preflight(config, shape, free, on_gpu, plan.batch_size, longest)
    speed = None if on_gpu else estimate_tokens_per_second(shape, config, measure_flops())
    pairs = 2 if config.method == "dpo" else 1
    learned_from = pairs * mean * min(rows, plan.batch_size * plan.gradient_accumulation_steps) * plan.total_steps
    return Forecast(
        training_rows=rows,
        plan=plan,
        memory=estimate_memory(shape, config, plan.batch_size, longest, on_gpu),
        free_bytes=free,
        tokens_per_second=speed,
        seconds=None if speed is None else START_S + learned_from / speed,
        refusals=refusals,
        findings=findings,
        trained_tokens=round(learned_from),
    )


def _training_rows(examples: int, lengths: Lengths, tokens: Tokens, config: TrainingConfig) -> int:
    """Return the rows of all examples, extrapolated from the sample, without those held back; a pair is one row."""
    scale = examples / max(1, tokens.examples)
    rows = (tokens.rows - (tokens.too_long if config.on_too_long == "drop" else 0)) * scale
    if config.method == "dpo":
        rows /= 2
    if config.packing:
        rows = min(rows, lengths.total * scale / config.max_length)
    held_back = config.holdout_fraction + (0 if config.validation_file else config.validation_fraction)
    return max(1, round(rows * (1 - held_back)))


def _run_preflight(
    config: TrainingConfig, shape: ModelShape, free: int | None, on_gpu: bool, batch: int, longest: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (refusals, findings) of the preflight."""
    try:
        passed = preflight(
            config,
            shape,
            free_bytes=free,
            engine_limits=None,
            on_gpu=on_gpu,
            plan_batch=batch,
            longest_tokens=longest,
        )
    except ConfigError as error:
        return error.faults, ()
    return (), tuple(finding.message for finding in passed.findings)
