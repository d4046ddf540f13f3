"""Recovery when memory runs out during a run: smaller batches with more accumulation, then recomputed activations."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import traceback
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
    "cublas_status_not_initialized",  # cuBLAS found no room for its workspace
)
"""The messages of PyTorch's CPU allocator, CUDA, C++ and cuBLAS, in lower case."""

_M_MMAP_THRESHOLD = -3
"""glibc's constant for the size from which a block is allocated by mmap (malloc.h)."""
_LARGE_BYTES = 2**20


class OutOfMemoryError(Exception):
    """A single row is too much for the memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory, of the machine or of the GPU, ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    words = f"{error} {_find_conversion_errors(error)}".lower()
    return any(sign in words for sign in _SIGNS)


def _find_conversion_errors(error: RuntimeError) -> str:
    """Return why transformers couldn't convert weights while it loaded them, such as no memory to quantize them.

    The error that it raises (5.19, `log_state_dict_report`) only says that its log has a report, which is off here.
    """
    reports = (frame.f_locals.get("loading_info") for frame, _ in traceback.walk_tb(error.__traceback__))
    reasons = [reason for report in reports for reason in getattr(report, "conversion_errors", {}).values()]
    return " ".join(map(str, reasons))


def release_memory() -> None:
    """Return unused memory to the system.

    glibc keeps freed blocks: after four attempts that was a gigabyte. It is asked to release them, and to allocate
    large ones by mmap from now on, which are returned at once and are a little slower.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt"):  # glibc only
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.malloc_trim(0)


def shrink_batch(plan: Plan, config: TrainingConfig) -> Plan:
    """Plan the same steps over the same rows with a smaller `batch_size` and more accumulation.

    The batch becomes its largest proper divisor that is allowed, so that a step still sees exactly the same rows. If
    there is none, activations are recomputed from now on, if `gradient_checkpointing` is `auto`.

    Raises:
        OutOfMemoryError: that has been done already, or isn't allowed.
    """
    least = 2 if config.method == "kto" else 1
    fewer = [size for size in range(least, plan.batch_size) if plan.batch_size % size == 0]
    if not fewer:
        return _enable_checkpointing(plan, config)
    times = plan.batch_size // fewer[-1]
    return dataclasses.replace(
        plan, batch_size=fewer[-1], gradient_accumulation_steps=plan.gradient_accumulation_steps * times
    )


def _enable_checkpointing(plan: Plan, config: TrainingConfig) -> Plan:
    is_free = can_checkpoint(config) and not plan.gradient_checkpointing
    if is_free and config.gradient_checkpointing == "auto":
        return dataclasses.replace(plan, gradient_checkpointing=True)
    remedy = "Set `gradient_checkpointing` to true, lower" if is_free else "Lower"
    raise OutOfMemoryError(
        f"There isn't enough memory for {plan.batch_size} row(s) at a time. {remedy} `max_length`, or use a smaller "
        "base model."
    )


def free_memory(on_gpu: bool) -> int | None:
    """Return the bytes available to a new process, of the GPU or of the machine; None if the system doesn't say."""
    if on_gpu:
        free: int = torch.cuda.mem_get_info()[0]
        return free
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
