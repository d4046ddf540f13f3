"""How many trainings can run at once: by the setting, else by memory and cores.

The estimate is cautious: a training that doesn't fit would also bring down the one beside it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from server.jobs.run_directory import RunDirectory
from serving import GPU, Device, inspect_device
from serving.machine.division import Division
from training.config.config import ConfigError, TrainingConfig
from training.preflight.checkpointing import resolve_checkpointing
from training.preflight.memory import estimate_memory
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.preflight.preflight import fit_max_length

_GB = 1e9


@dataclass(frozen=True)
class RunningJob:
    """A running job, for the estimate of free memory."""

    run: RunDirectory
    has_allocated: bool
    """Whether it has done a step: then its memory is already missing from the free memory, and isn't subtracted
    again."""


def find_wait_reason(
    run: RunDirectory,
    running: Sequence[RunningJob],
    max_running_jobs: int | None,
    device: Device | None = None,
    division: Division | None = None,
) -> str | None:
    """Return why this job can't start beside those; None if it can. The first always can. May take a second.

    device: default: what `inspect_device` finds. division: which devices trainings may use; default: all.
    """
    if not running:
        return None
    if max_running_jobs is not None:
        return _check_count(len(running), max_running_jobs, "max_running_jobs")
    device, division = device or inspect_device(), division or Division()
    cores = len(division.training_cores or os.sched_getaffinity(0))
    if device.kind == "cpu" and (reason := _check_count(len(running), cores, "the number of cores")):
        return reason
    return _check_memory(run, running, device, division)


def estimate_bytes(run: RunDirectory, on_gpu: bool, max_bytes: int | None = None) -> int | None:
    """Estimate the run's peak memory; None if the base model's shape is unknown.

    max_bytes: the device's total memory. A run without a plan is assumed to run without gradient checkpointing if it
    fits into that.
    """
    try:
        config = TrainingConfig.from_dict(run.config)
        shape = ModelShape.from_folder(Path(config.base_model))
    except (ConfigError, ModelShapeError, OSError):
        return None
    plan = run.plan
    batch = plan.get("batch_size") or (1 if config.batch_size == "auto" else config.batch_size)
    fitting = fit_max_length(config, shape)
    if plan and config.gradient_checkpointing == "auto":
        fitting = dataclasses.replace(fitting, gradient_checkpointing=bool(plan.get("gradient_checkpointing")))
    fitting, _ = resolve_checkpointing(fitting, shape, free_bytes=max_bytes, on_gpu=on_gpu)
    return estimate_memory(shape, fitting, int(batch), fitting.max_length, on_gpu).total


def _check_count(running: int, limit: int, rule: str) -> str | None:
    if running < limit:
        return None
    return f"The job is waiting: {running} running job(s) is the limit set by {rule}"


def _check_memory(run: RunDirectory, running: Sequence[RunningJob], device: Device, division: Division) -> str | None:
    on_gpu = device.kind == "cuda"
    gpu = division.training[0] if division.training and not division.on_cpu else device.main_gpu
    memory: GPU | Device = device.gpus[gpu] if on_gpu else device
    free, total = memory.memory_free_bytes, memory.memory_total_bytes
    needed = estimate_bytes(run, on_gpu, total)
    reserved = [estimate_bytes(other.run, on_gpu, total) for other in running if not other.has_allocated]
    if needed is None or None in reserved:
        return "The job is waiting for the running one: the memory they need together can't be estimated"
    left = free - sum(taken or 0 for taken in reserved)
    if needed <= left:
        return None
    return (
        f"The job is waiting for memory: it needs about {needed / _GB:.1f} GB, and {max(0, left) / _GB:.1f} GB are free"
    )
