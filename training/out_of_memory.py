"""What to do when memory runs out in the middle of a run: half as many rows at a time, twice as often."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch

from training.auto import Plan

FILE = "smaller_batch.json"
_SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "alloc_failed")
"""How PyTorch's CPU allocator, CUDA, C++ and cuBLAS put it, in lower case."""


class OutOfMemoryError(Exception):
    """One row at a time is too much for the memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory, of the machine or of the GPU, ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def smaller(plan: Plan) -> Plan:
    """The same steps over the same rows with a smaller `batch_size` and more accumulation.

    The batch becomes its largest proper divisor, so that a step still sees exactly the same rows.

    Raises:
        OutOfMemoryError: `batch_size` is 1 already.
    """
    if plan.batch_size == 1:
        raise OutOfMemoryError(
            "The memory isn't enough for one row at a time. Set `gradient_checkpointing` to true, lower `max_length`, "
            "or take a smaller base model."
        )
    divisor = next(count for count in range(2, plan.batch_size + 1) if plan.batch_size % count == 0)
    return dataclasses.replace(
        plan,
        batch_size=plan.batch_size // divisor,
        gradient_accumulation_steps=plan.gradient_accumulation_steps * divisor,
    )


def remember(run_dir: Path, plan: Plan) -> None:
    """Notes the batch of `plan` in RUN_DIR, so that the run doesn't run out of memory again when it's resumed."""
    values = {"batch_size": plan.batch_size, "gradient_accumulation_steps": plan.gradient_accumulation_steps}
    (run_dir / FILE).write_text(json.dumps(values), encoding="utf-8")


def as_remembered(run_dir: Path, plan: Plan) -> Plan:
    """`plan` with the batch that was noted in RUN_DIR, if any."""
    try:
        noted = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        rows = noted["batch_size"] * noted["gradient_accumulation_steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return plan
    if rows != plan.batch_size * plan.gradient_accumulation_steps:
        return plan
    return dataclasses.replace(plan, **noted)
