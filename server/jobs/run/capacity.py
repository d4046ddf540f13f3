"""How many trainings this machine holds at once: by the setting, else by memory and cores.

It means to be careful: a training that doesn't fit takes the one beside it down, too.
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
class Started:
    """A job that runs, as far as room is concerned."""

    run: RunDirectory
    has_settled: bool
    """Whether it has done a step: then what it takes shows in what is free, and isn't counted again."""


def why_wait(
    run: RunDirectory,
    running: Sequence[Started],
    max_running_jobs: int | None,
    device: Device | None = None,
    division: Division | None = None,
) -> str | None:
    """Why this job can't start beside those; None when it can. The first always can. May take a second.

    device: by default what `inspect_device` finds. division: which devices trainings may use; by default all.
    """
    if not running:
        return None
    if max_running_jobs is not None:
        return _too_many(len(running), max_running_jobs, "max_running_jobs")
    device, division = device or inspect_device(), division or Division()
    cores = len(division.training_cores or os.sched_getaffinity(0))
    if device.kind == "cpu" and (reason := _too_many(len(running), cores, "the number of cores")):
        return reason
    return _too_large(run, running, device, division)


def expected_bytes(run: RunDirectory, on_gpu: bool, most_bytes: int | None = None) -> int | None:
    """What the run is expected to take at its peak; None for a base model of which nothing is known.

    most_bytes: all memory of the device: a run that has no plan yet is taken to compute its activations once if it
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
    fitting, _ = resolve_checkpointing(fitting, shape, free_bytes=most_bytes, on_gpu=on_gpu)
    return estimate_memory(shape, fitting, int(batch), fitting.max_length, on_gpu).total


def _too_many(running: int, most: int, rule: str) -> str | None:
    if running < most:
        return None
    return f"The job waits: {running} at a time is as many as may run by {rule}"


def _too_large(run: RunDirectory, running: Sequence[Started], device: Device, division: Division) -> str | None:
    on_gpu = device.kind == "cuda"
    gpu = division.training[0] if on_gpu and division.training and not division.on_cpu else 0  # which trainings use
    memory: GPU | Device = device.gpus[gpu] if on_gpu else device
    free, most = memory.memory_free_bytes, memory.memory_total_bytes
    wanted = expected_bytes(run, on_gpu, most)
    promised = [expected_bytes(other.run, on_gpu, most) for other in running if not other.has_settled]
    if wanted is None or None in promised:
        return "The job waits for the running one: how much memory they take together can't be told"
    left = free - sum(taken or 0 for taken in promised)
    if wanted <= left:
        return None
    return (
        f"The job waits for memory: it is expected to take {wanted / _GB:.1f} GB, and {max(0, left) / _GB:.1f} GB are "
        "free beside what runs"
    )
