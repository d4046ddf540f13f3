"""What to do when memory runs out in the middle of a run: fewer rows at a time, more often; then less kept of each."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
from pathlib import Path

import torch

from training.config.auto import Plan
from training.config.config import TrainingConfig
from training.preflight.checkpointing import can_checkpoint

_SIGNS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "alloc_failed",
)
"""How PyTorch's CPU allocator, CUDA, C++ and cuBLAS put it, in lower case."""

_M_MMAP_THRESHOLD = -3
"""glibc's number for the size from which a block is taken from the system (malloc.h)."""
_LARGE_BYTES = 2**20


class OutOfMemoryError(Exception):
    """One row at a time is too much for the memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory, of the machine or of the GPU, ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def give_back() -> None:
    """Returns what is no longer used to the system.

    glibc keeps freed blocks for itself: after four attempts that was a gigabyte. It is told to let them go, and to take
    large ones from the system from now on, which gives them back at once and is a little slower.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt"):  # glibc; others have their own ways
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.malloc_trim(0)


def smaller(plan: Plan, config: TrainingConfig) -> Plan:
    """The same steps over the same rows with a smaller `batch_size` and more accumulation.

    The batch becomes its largest proper divisor that there may be, so that a step still sees exactly the same rows.
    Where there is none, activations are computed twice from now on, if `gradient_checkpointing` is `auto`.

    Raises:
        OutOfMemoryError: that is done already, or isn't to be done.
    """
    least = 2 if config.method == "kto" else 1
    fewer = [size for size in range(least, plan.batch_size) if plan.batch_size % size == 0]
    if not fewer:
        return _with_checkpointing(plan, config)
    times = plan.batch_size // fewer[-1]
    return dataclasses.replace(
        plan, batch_size=fewer[-1], gradient_accumulation_steps=plan.gradient_accumulation_steps * times
    )


def _with_checkpointing(plan: Plan, config: TrainingConfig) -> Plan:
    is_free = can_checkpoint(config) and not plan.gradient_checkpointing
    if is_free and config.gradient_checkpointing == "auto":
        return dataclasses.replace(plan, gradient_checkpointing=True)
    remedy = "Set `gradient_checkpointing` to true, lower" if is_free else "Lower"
    raise OutOfMemoryError(
        f"The memory isn't enough for {plan.batch_size} row(s) at a time. {remedy} `max_length`, or take a smaller "
        "base model."
    )


def free_memory(on_gpu: bool) -> int | None:
    """Bytes that a new process can have, of the GPU or of the machine; None where the system doesn't say."""
    if on_gpu:
        free: int = torch.cuda.mem_get_info()[0]
        return free
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
