"""Checks of a run before it starts: does it fit, can its result be served, do the settings make sense. Imports no
torch; `docs/preflight.md` has the rules.

    preflight(config, ModelShape.from_folder(folder), free_bytes=free, engine_limits=limits)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from training.config.config import ConfigError, TrainingConfig
from training.preflight.checkpointing import can_checkpoint, resolve_checkpointing
from training.preflight.contradictions import Refusal, find_contradictions, is_changed
from training.preflight.memory import MemoryEstimate, estimate_memory, least_batch, memory_limit
from training.preflight.model_shape import ModelShape
from training.preflight.servable import EngineLimits, find_unservable

CLOSE = 0.9
"""Share of the memory above which a fitting run gets a warning; estimates were up to 10% too low."""
_SHORTEST = 256
"""`max_length` in tokens below which no further reduction is proposed."""
_GB = 1e9


@dataclass(frozen=True)
class Finding:
    """Something that a user should know before the run, but that doesn't prevent it."""

    param: str
    """The setting concerned."""
    message: str
    """One sentence or two: the issue, and what to do about it."""


@dataclass(frozen=True)
class Preflight:
    """A run that may start."""

    findings: tuple[Finding, ...]
    """What the user should know all the same."""
    memory: MemoryEstimate
    """Expected memory."""


def preflight(
    config: TrainingConfig,
    shape: ModelShape,
    *,
    free_bytes: int | None,
    engine_limits: EngineLimits | None,
    on_gpu: bool = False,
    plan_batch: int | None = None,
    longest_tokens: int | None = None,
    room: str | None = None,
    way_out: str | None = None,
) -> Preflight:
    """Check a run; return what should be known about one that may start.

    Args:
        free_bytes: memory available to the run, of the GPU if there is one; None if unknown.
        engine_limits: of the engine that will serve the result; None if there is none.
        plan_batch: rows in a forward pass. Default: as configured; for `auto` the minimum.
        longest_tokens: of the training rows. Default: `max_length`.
        room: what `free_bytes` is, such as "9.1 GB are left"; by default it says that they are free.
        way_out: a sentence, without its end, that a refusal for memory ends with.

    Raises:
        ConfigError: it can't work; the message has every reason, `param` is the setting of the first.
    """
    longest = min(longest_tokens or config.max_length, config.max_length)
    batch = plan_batch or least_batch(config)
    limit = memory_limit(config, free_bytes)
    estimate = _estimate_resolved(shape, config, batch, longest, on_gpu, limit)
    refusals = [
        *find_contradictions(config),
        *find_unservable(config, engine_limits),
        *_check_base(config, shape),
        *_check_machine(config, on_gpu),
    ]
    if limit is not None and estimate.total > limit:
        param, words = _memory_refusal(config, shape, batch, longest, on_gpu, limit, room)
        refusals.append((param, f"{words} {way_out}." if way_out else words))
    _refuse(refusals)
    return Preflight(tuple(_list_findings(config, shape, engine_limits, estimate, limit)), estimate)


def fit_max_length(config: TrainingConfig, shape: ModelShape) -> TrainingConfig:
    """Return `config` with a `max_length` that fits the base, if it is at its default; one that is set explicitly is
    rejected by `preflight` if it is too long."""
    if is_changed(config, "max_length") or shape.max_positions is None:
        return config
    virtual = config.num_virtual_tokens if config.finetuning_type in ("prefix_tuning", "p_tuning") else 0
    return dataclasses.replace(config, max_length=max(8, min(config.max_length, shape.max_positions - virtual)))


def refuse_contradictions(config: TrainingConfig, engine_limits: EngineLimits | None = None) -> None:
    """Check what can be checked without knowing the base.

    Raises:
        ConfigError: settings contradict each other, or the result couldn't be served as `serve_as` says.
    """
    _refuse([*find_contradictions(config), *find_unservable(config, engine_limits)])


def _refuse(refusals: Sequence[Refusal]) -> None:
    if refusals:
        raise ConfigError([sentence for _, sentence in refusals], param=refusals[0][0])


def _check_base(config: TrainingConfig, shape: ModelShape) -> Iterator[Refusal]:
    virtual = config.num_virtual_tokens if config.finetuning_type in ("prefix_tuning", "p_tuning") else 0
    if shape.max_positions is not None and config.max_length + virtual > shape.max_positions:
        beside = f" and `num_virtual_tokens` {virtual}" if virtual else ""
        yield (
            "max_length",
            f"`max_length` is {config.max_length}{beside}, but {config.base_model} supports up to "
            f"{shape.max_positions} tokens. Set `max_length` to {max(8, shape.max_positions - virtual)} or less.",
        )
    beyond = [number for number in config.layers_to_transform or () if number >= shape.n_layers]
    if beyond:
        yield (
            "layers_to_transform",
            f"`layers_to_transform` has block {beyond[0]}, but {config.base_model} has {shape.n_layers} blocks, "
            "counted from 0. Leave it out.",
        )


def _check_machine(config: TrainingConfig, on_gpu: bool) -> Iterator[Refusal]:
    if config.attn_implementation == "flash_attention_2" and not on_gpu:
        yield (
            "attn_implementation",
            "`attn_implementation` is 'flash_attention_2', which needs a GPU, but there is none here. Use `auto`.",
        )


def _estimate_resolved(
    shape: ModelShape, config: TrainingConfig, batch: int, longest: int, on_gpu: bool, limit: float | None
) -> MemoryEstimate:
    """Estimate the run's memory, with `gradient_checkpointing: auto` resolved for `limit` bytes."""
    decided, _ = resolve_checkpointing(config, shape, free_bytes=limit, on_gpu=on_gpu, longest_tokens=longest)
    return estimate_memory(shape, decided, batch, longest, on_gpu)


def _memory_refusal(
    config: TrainingConfig,
    shape: ModelShape,
    batch: int,
    longest: int,
    on_gpu: bool,
    limit: float,
    room: str | None,
) -> Refusal:
    """Return the refusal, with what to change in order of cost, and the memory after each step."""
    need = _estimate_resolved(shape, config, batch, longest, on_gpu, limit).total
    steps: list[str] = []
    first: str | None = None
    for param, words, smaller, rows in _list_remedies(config, batch, longest):
        total = _estimate_resolved(shape, smaller, rows, longest, on_gpu, limit).total
        steps.append(f"{words} (then {total / _GB:.2f} GB)")
        first = first or param
        if total <= limit:
            break
    else:
        steps.append("use a smaller base model")
    gigabytes = f"{limit / _GB:.2f} GB"
    is_own_limit = config.max_memory_gb and limit == config.max_memory_gb * _GB
    room = f"`max_memory_gb` allows {gigabytes}" if is_own_limit else room or f"{gigabytes} are free"
    rows_of = f"{batch} row{'s' if batch > 1 else ''} of {longest} tokens at a time"
    if config.gradient_checkpointing and can_checkpoint(config):
        rows_of += ", with activations recomputed"
    return (
        first or "base_model",
        f"The run is expected to need {need / _GB:.2f} GB with {rows_of}, but {room}. {_join_steps(steps)}.",
    )


def _list_remedies(config: TrainingConfig, batch: int, longest: int) -> Iterator[tuple[str, str, TrainingConfig, int]]:
    """Yield (setting, what to do, the configuration with all steps so far, its rows per batch), the cheapest first."""
    least = 2 if config.method == "kto" else 1
    config = dataclasses.replace(config, batch_size=least)
    if batch > least:
        accumulation = -(-batch * config.gradient_accumulation_steps // least)
        yield (
            "batch_size",
            f"set `batch_size` to {least} and `gradient_accumulation_steps` to {accumulation}",
            config,
            least,
        )
    if not config.gradient_checkpointing and can_checkpoint(config):
        config = dataclasses.replace(config, gradient_checkpointing=True)
        yield "gradient_checkpointing", "set `gradient_checkpointing` to true", config, least
    length = longest // 2
    while length >= _SHORTEST:
        config = dataclasses.replace(config, max_length=length)
        yield "max_length", f"lower `max_length` to {length}", config, least
        length //= 2
    if config.quantization == "none" and config.finetuning_type != "full":
        config = dataclasses.replace(config, quantization="nf4")
        yield "quantization", "set `quantization` to nf4", config, least
    if config.finetuning_type == "full":
        config = dataclasses.replace(config, finetuning_type="lora", quantization="nf4")
        yield "finetuning_type", "set `finetuning_type` to lora and `quantization` to nf4", config, least


def _list_findings(
    config: TrainingConfig,
    shape: ModelShape,
    limits: EngineLimits | None,
    estimate: MemoryEstimate,
    limit: float | None,
) -> Iterator[Finding]:
    if limit is not None and estimate.total > CLOSE * limit:
        yield Finding(
            "max_length",
            f"The run is expected to need {estimate.total / _GB:.2f} of {limit / _GB:.2f} GB, which is close to the "
            "limit. If memory runs out, the batch size is reduced.",
        )
    if limits and limits.max_model_len and config.max_length > limits.max_model_len and config.serve_as != "none":
        yield Finding(
            "max_length",
            f"`max_length` is {config.max_length}, but the engine serves up to {limits.max_model_len} tokens: "
            "longer examples train for lengths that can't be served.",
        )
    if shape.n_experts and config.finetuning_type != "full":
        yield Finding(
            "target_modules",
            f"The base model is a mixture of {shape.n_experts} experts; adapters and 4-bit weights apply to its "
            "attention, not to the experts.",
        )
    if config.method in ("dpo", "kto") and not config.from_adapter:
        yield Finding(
            "from_adapter",
            f"`method: {config.method}` starts from the base model; it works better from an adapter that was "
            "trained on similar chats (`from_adapter`).",
        )
    if config.loss_type == "robust" and config.label_smoothing == 0:
        yield Finding(
            "label_smoothing", "`loss_type: robust` with `label_smoothing` 0 is the same as the sigmoid loss."
        )
    if is_changed(config, "mix_ratio") and not config.mix_file:
        yield Finding("mix_ratio", f"`mix_ratio` is {config.mix_ratio}, but has no effect without a `mix_file`.")


def _join_steps(steps: list[str]) -> str:
    text = steps[0] if len(steps) == 1 else f"{', '.join(steps[:-1])}, and if that isn't enough, {steps[-1]}"
    return text[0].upper() + text[1:]
