"""How engines and trainings share this machine: the policy, the GPUs of each, the engines' share, what training gets.

`accelerator_policy: auto` weighs what the engines need against what a job without settings needs, by the same estimates
by which jobs are judged: beside each other where both fit, in turns on one GPU where they don't, apart on several.
It stops the engine rather than putting it to sleep: a stopped engine leaves nothing behind, neither in the GPU's memory
nor in the host's, and adapters have been silently wrong after a sleep (vLLM #53888).
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from server.settings import Settings
from serving import BaseModel, Device, EngineStartError, VLLMSettings
from serving.engines.vllm.arguments import GIB, least_gpu_bytes, runs_on_cpu, text_config
from serving.machine.division import Division, Policy, divide
from training.config.config import TrainingConfig
from training.preflight.memory import estimate_memory
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.preflight.preflight import fit_max_length

ENGINE_SHARE = 0.9
"""An engine's share of a GPU of its own; vLLM's default."""
_TENSOR_PARALLEL = (1, 2, 4, 8)
_ALIKE = 0.9
"""GPUs with at least this share of the largest one's memory work together."""
_MARGIN = 1.1
"""On estimates, which were up to 10% too low."""
_ROWS = 4
"""Rows at a time that a training gets memory for where there is enough; a choice, not a measurement."""


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Needs:
    """Estimated bytes on the GPU that is looked at."""

    engines: int
    """All engines, with a useful context length."""
    training: int
    """A job without settings, at its slowest."""
    fast_training: int
    """The same with several rows at a time."""


def share_accelerator(
    settings: Settings, bases: Sequence[BaseModel], common: VLLMSettings, device: Device
) -> tuple[Division, VLLMSettings]:
    """Return who gets what, and the engines' common settings that follow. Raises: EngineStartError: it can't be done.

    device: as it is without any engine of ours.
    """
    named = settings.engine_device_numbers or settings.training_device_numbers
    on_cpu = runs_on_cpu(common, device)
    if on_cpu or not device.gpus:
        policy = settings.accelerator_policy
        if policy == "auto":
            policy = "separate" if named else "split"
        division = _divide(settings, policy, device, on_cpu)
        return division, dataclasses.replace(common, devices=division.engine)
    return _share_gpus(settings, bases, common, device, is_named=bool(named))


def _share_gpus(
    settings: Settings, bases: Sequence[BaseModel], common: VLLMSettings, device: Device, *, is_named: bool
) -> tuple[Division, VLLMSettings]:
    alike = _list_alike(device)
    parallel = _choose_parallel(settings, bases, common, device, alike)
    n_engine_gpus = parallel * len(bases) * settings.replicas
    policy, needs = settings.accelerator_policy, _estimate_needs(bases, common, settings.replicas)
    main = device.gpus[device.main_gpu]
    fits = needs is not None and needs.engines + needs.training <= main.memory_free_bytes
    if policy == "auto":
        apart = is_named or len(alike) > n_engine_gpus
        policy = "separate" if apart else "split" if fits and len(alike) == parallel == 1 else "stop"
    if policy == "sleep":
        _check_sleep(bases, device)
    if policy == "separate" and not is_named and len(alike) > n_engine_gpus:
        division = divide(
            policy, device, on_cpu=False, engine_devices=alike[:n_engine_gpus], training_devices=alike[n_engine_gpus:]
        )
    else:
        division = _divide(settings, policy, device, on_cpu=False)
    share = settings.gpu_memory_utilization or ENGINE_SHARE
    if policy == "split" and needs and fits and settings.gpu_memory_utilization is None:
        share = _split_share(needs, main.memory_free_bytes, main.memory_total_bytes)
    gpu = device.gpus[division.training[0]] if division.training else main
    left = gpu.memory_free_bytes - (int(share * gpu.memory_total_bytes) if policy == "split" else 0)
    devices = division.engine or (alike[:n_engine_gpus] if parallel > 1 else ())
    division = dataclasses.replace(division, training_bytes=max(0, left))
    logger.info(
        "accelerator_policy %s: %s. Each engine gets %.0f%% of its GPU; %.1f GiB are left for training.",
        policy, _describe_needs(needs, main.memory_free_bytes), 100 * share, left / GIB,
    )  # fmt: skip
    return division, dataclasses.replace(
        common,
        devices=devices,
        gpu_memory_utilization=share,
        tensor_parallel=parallel,
        may_sleep=policy == "sleep",
    )


def _describe_needs(needs: _Needs | None, free: int) -> str:
    if needs is None:
        return "the base model's sizes are unknown"
    return (
        f"on one GPU the engines need about {needs.engines / GIB:.1f} GiB, and a job without settings "
        f"{needs.training / GIB:.1f} GiB, of {free / GIB:.1f} GiB free"
    )


def _divide(settings: Settings, policy: Policy, device: Device, on_cpu: bool) -> Division:
    return divide(
        policy,
        device,
        on_cpu=on_cpu,
        engine_devices=settings.engine_device_numbers,
        training_devices=settings.training_device_numbers,
    )


def _list_alike(device: Device) -> tuple[int, ...]:
    """Return the GPUs that are about as large as the largest, which comes first."""
    main = device.gpus[device.main_gpu].memory_total_bytes
    return tuple(number for number in device.gpu_order if device.gpus[number].memory_total_bytes >= _ALIKE * main)


def _choose_parallel(
    settings: Settings, bases: Sequence[BaseModel], common: VLLMSettings, device: Device, alike: Sequence[int]
) -> int:
    """Return the GPUs of each engine: as many as are set, else the fewest over which each base fits; 1 if none do."""
    if asked := re.search(r"(?:--tensor-parallel-size|-tp)[ =](\d+)", " ".join(common.extra_args)):
        return int(asked[1])
    if settings.tensor_parallel or any(argument.startswith(("--quantization", "-q")) for argument in common.extra_args):
        return settings.tensor_parallel or 1
    room = ENGINE_SHARE * min(device.gpus[number].memory_total_bytes for number in alike)
    heads = [text_config(base).get("num_attention_heads") for base in bases]
    for count in _TENSOR_PARALLEL:
        can_spread = count == 1 or all(isinstance(number, int) and number % count == 0 for number in heads)
        if count <= len(alike) and can_spread and max(least_gpu_bytes(base, common, count) for base in bases) <= room:
            return count
    return 1


def _estimate_needs(bases: Sequence[BaseModel], common: VLLMSettings, replicas: int) -> _Needs | None:
    """Return None if a base's sizes are unknown."""
    try:
        shapes = [ModelShape.from_folder(base.path) for base in bases]
    except ModelShapeError:
        return None
    engines = sum(least_gpu_bytes(base, common) for base in bases) * replicas
    return _Needs(
        engines,
        max(_estimate_training(base, shape, 1) for base, shape in zip(bases, shapes, strict=True)),
        max(_estimate_training(base, shape, _ROWS) for base, shape in zip(bases, shapes, strict=True)),
    )


def _estimate_training(base: BaseModel, shape: ModelShape, rows: int) -> int:
    """Estimate the bytes of a job without settings that recomputes its activations, with a margin."""
    values = {"base_model": str(base.path), "training_file": "training.jsonl", "output_dir": "adapter"}
    config = dataclasses.replace(
        fit_max_length(TrainingConfig.from_dict(values), shape), gradient_checkpointing=True, batch_size=rows
    )
    return round(_MARGIN * estimate_memory(shape, config, rows, config.max_length, on_gpu=True).total)


def _split_share(needs: _Needs, free: int, total: int) -> float:
    """Return the engines' share of a GPU that they share with a training: half of what both don't need goes to each."""
    spare = free - needs.engines - needs.training
    training = needs.training + min(spare // 2, needs.fast_training - needs.training)
    return min(ENGINE_SHARE, math.floor(1000 * (free - training) / total) / 1000)


def _check_sleep(bases: Sequence[BaseModel], device: Device) -> None:
    weights = sum(base.weights_bytes for base in bases)
    if weights > device.memory_free_bytes:
        raise EngineStartError(
            f"accelerator_policy is sleep, which keeps the weights in main memory while a job trains: that takes "
            f"{weights / GIB:.1f} GiB, and {device.memory_free_bytes / GIB:.1f} GiB is free. Use stop or auto."
        )
