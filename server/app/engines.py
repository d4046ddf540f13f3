"""Creates the engines that the settings define, without starting them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from server.app.data_dir import StartError
from server.settings import Settings
from serving import (
    Adapter,
    BaseModel,
    Device,
    EngineStartError,
    Pool,
    Replica,
    VLLMProcess,
    VLLMSettings,
    inspect_device,
    scan_adapters,
)
from serving.engines.remote.client import RemoteAddress
from serving.engines.remote.engine import FOREIGN_BASE, RemoteEngine
from serving.engines.vllm.arguments import LaunchPlan, plan_launch, runs_on_cpu
from serving.machine.leftovers import end_leftovers, hold_engine_lock
from serving.registry.derived_limits import LimitSettings

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
_REMOTE_ID = re.compile(r"(?!engine-\d)[a-z0-9][a-z0-9._-]{0,63}")


def read_wanted_limits(settings: Settings) -> LimitSettings:
    """Return the engine limits from the settings; the others are derived from the adapters."""
    return LimitSettings(settings.max_lora_rank, settings.max_adapters, settings.max_cpu_adapters)


def make_pools(
    settings: Settings,
    bases: Sequence[BaseModel],
    common: VLLMSettings,
    base_model_map: Mapping[str, str],
    device: Device,
) -> list[Pool]:
    """Return a pool for each base model: `replicas` local engines, and the remote engines that share its work.

    common: the settings of all engines. base_model_map: other name → base's name.
    Raises: EngineStartError if two bases have the same name or weights, or a setting is invalid.
    """
    _refuse_duplicates(bases)
    shared = _map_adapter_engines(settings, bases)
    shares = _divide_settings(common, device, len(bases) * settings.replicas)
    pools = []
    for place, base in enumerate(bases):
        own_names = tuple(name for name, meant in base_model_map.items() if meant == base.name)
        limits = read_wanted_limits(settings).derive(_find_adapters(base, settings.adapters_dir, is_first=place == 0))
        ours = []
        for number in range(place * settings.replicas, (place + 1) * settings.replicas):
            own = _add_paths(shares[number], settings.data_dir, number)
            own = replace(own, base_names=own_names)
            own = replace(own, max_lora_rank=limits[0], max_loras=limits[1], max_cpu_loras=limits[2])
            ours.append(Replica(f"engine-{number}", VLLMProcess(base, own, device, planner=_plan_launch)))
        remote = [_make_remote(settings, engine_id, base) for engine_id, name in shared.items() if name == base.name]
        pools.append(Pool(base, (*ours, *remote)))
    return pools


def make_remotes(settings: Settings, *, with_shared: bool = False) -> list[Replica]:
    """Return the remote engines that serve their own models. Raises: EngineStartError.

    with_shared: include those that share a base's work.
    """
    for engine_id in settings.remote_engines:
        if not _REMOTE_ID.fullmatch(engine_id):
            raise EngineStartError(
                f"remote_engines has the id {engine_id!r}, but an id is 1 to 64 lower-case letters, digits, '.', "
                "'_' or '-', and must not be a local engine's id such as engine-0. Choose another, such as lab."
            )
    if unknown := settings.remote_engine_keys.keys() - settings.remote_engines.keys():
        raise EngineStartError(
            f"remote_engine_keys has a key for {min(unknown)!r}, which isn't in remote_engines. Add its URL there."
        )
    shared = set() if with_shared else {entry.partition("=")[0] for entry in settings.remote_adapter_engines}
    return [_make_remote(settings, engine_id, None) for engine_id in settings.remote_engines if engine_id not in shared]


def end_leftover_engines(data_dir: Path) -> int:
    """End the processes of engines that a killed server left behind; return how many there were.

    Raises: EngineStartError when another server uses this directory.
    """
    ended = 0
    for state_file in data_dir.glob("engine*/engine.json"):
        with hold_engine_lock(state_file.parent):
            ended += end_leftovers(state_file)
    return ended


def _add_paths(own: VLLMSettings, data_dir: Path, number: int) -> VLLMSettings:
    """Return the settings with the engine's own directory and log."""
    state_dir = _get_state_dir(data_dir, number)
    return replace(own, state_dir=state_dir, log_path=data_dir / "logs" / f"{state_dir.name}.log")


def _get_state_dir(data_dir: Path, number: int) -> Path:
    return data_dir / (f"engine-{number}" if number else "engine")


def _find_adapters(base: BaseModel, adapters_dir: Path, *, is_first: bool) -> list[Adapter]:
    """Return the adapters of this base; those without a base hash belong to the first base."""
    adapters, _ = scan_adapters(adapters_dir)
    return [adapter for adapter in adapters if (adapter.base_model_sha256 or (is_first and base.sha256)) == base.sha256]


def _plan_launch(base: BaseModel, settings: VLLMSettings, _device: Device, socket: Path) -> LaunchPlan:
    """Call `plan_launch` with the memory that is free now, after other engines and trainings have taken theirs."""
    return plan_launch(base, settings, inspect_device(), socket)


def _divide_settings(common: VLLMSettings, device: Device, count: int) -> list[VLLMSettings]:
    """Return the settings with each engine's share: its own cores or GPUs if there are enough, else a part of all.

    vLLM chooses its cores by itself, and two of them would choose the same.
    """
    if count == 1:
        return [common]
    on_cpu = runs_on_cpu(common, device)
    there = common.devices or tuple(sorted(os.sched_getaffinity(0)) if on_cpu else range(len(device.gpus)))
    if len(there) < count:
        part = replace(common, gpu_memory_utilization=common.gpu_memory_utilization / count)
        return [common if on_cpu else part] * count
    cuts = [len(there) * place // count for place in range(count + 1)]
    return [replace(common, devices=there[cuts[place] : cuts[place + 1]]) for place in range(count)]


def _refuse_duplicates(bases: Sequence[BaseModel]) -> None:
    for place, base in enumerate(bases):
        for other in bases[:place]:
            if base.name == other.name or base.sha256 == other.sha256:
                same = "name" if base.name == other.name else "weights"
                raise EngineStartError(
                    f"more_models has {base.path}, which has the same {same} as {other.path}, so requests and "
                    "adapters can't be assigned to one of them. Leave one out, or rename its folder."
                )


def _map_adapter_engines(settings: Settings, bases: Sequence[BaseModel]) -> dict[str, str]:
    """Return id → base's name, for the remote engines that share a base's work."""
    names = [base.name for base in bases]
    shared = {}
    for entry in settings.remote_adapter_engines:
        engine_id, _, base = entry.partition("=")
        if engine_id not in settings.remote_engines:
            raise EngineStartError(
                f"remote_adapter_engines has {engine_id!r}, which isn't in remote_engines. Add its URL there."
            )
        if not base and len(names) > 1:
            raise EngineStartError(
                f"remote_adapter_engines has {engine_id!r} without a base model, but {len(names)} are served here. "
                f"Write {engine_id}={names[0]}."
            )
        if base and base not in names:
            raise EngineStartError(
                f"remote_adapter_engines has {entry}, but the base models served here are {', '.join(names)}. "
                "Use one of them."
            )
        shared[engine_id] = base or names[0]
    return shared


def _make_remote(settings: Settings, engine_id: str, base: BaseModel | None) -> Replica:
    key = settings.remote_engine_keys.get(engine_id)
    address = RemoteAddress.parse(
        engine_id, settings.remote_engines[engine_id], key.get_secret_value() if key else None
    )
    return Replica(engine_id, RemoteEngine(address, base or FOREIGN_BASE))


def list_local_engines(pools: Sequence[Pool]) -> list[VLLMProcess]:
    """Return the engines on this machine, which can free memory for a training."""
    engines = [replica.engine for pool in pools for replica in pool.replicas]
    return [engine for engine in engines if isinstance(engine, VLLMProcess)]


def check_base_model_map(settings: Settings, base_names: Sequence[str]) -> dict[str, str]:
    """Return other name → base's name from the setting `base_model_map`, checked.

    Raises:
        StartError: a base isn't served, or a name is invalid or taken.
    """
    served = " and ".join(map(repr, base_names))
    for alias, target in settings.base_model_map.items():
        if target not in base_names:
            raise StartError(
                f"base_model_map has {alias}={target}, but the base model served here is {served}. Write "
                f"{alias}={base_names[0]}, or start with --model {target} or --more-models {target}."
            )
        if alias in base_names or alias.startswith("ft:") or not _ALIAS.fullmatch(alias):
            raise StartError(
                f"base_model_map has the name {alias!r}, but a name must differ from {served}, must not begin with "
                "ft:, and may have only letters, digits, '.', '_', ':', '/' and '-', starting with a letter or "
                "digit. Choose another, such as gpt-4o-mini-2024-07-18."
            )
    return dict(settings.base_model_map)


def build_engine_settings(settings: Settings) -> VLLMSettings:
    """Return the settings that all engines share; `share_accelerator` adds the GPUs', `make_pools` each engine's."""
    rank, loras, cpu_loras = read_wanted_limits(settings).derive([])
    return VLLMSettings(
        state_dir=settings.data_dir / "engine",
        log_path=settings.data_dir / "logs" / "engine.log",
        max_lora_rank=rank,
        max_loras=loras,
        max_cpu_loras=cpu_loras,
        max_model_len=settings.max_model_len,
        dtype=None if settings.dtype == "auto" else settings.dtype,
        kv_cache_gib=settings.kv_cache_gib,
        tool_call_parser=settings.tool_call_parser,
        start_timeout_s=settings.engine_start_timeout_s,
        wait_s=settings.engine_wait_s,
        stall_timeout_s=settings.engine_stall_timeout_s,
        extra_args=tuple(settings.engine_args),
    )
