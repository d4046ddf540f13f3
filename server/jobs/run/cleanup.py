"""What is removed of a job that has ended: what only its run needs, and a result that nobody may use.

What it told, its figures and its settings stay. A training that is over is never lost because its job failed: its
result is kept aside. Everything here may be broken off and done again.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from server.files.contents import link_or_copy
from server.jobs.run import checkpoints
from server.jobs.run.context import Workshop
from server.jobs.run.process import is_free
from server.jobs.run_directory import RunDirectory

UNSERVED = "unserved"
"""Folder of the data directory for results that aren't served."""


async def clear(workshop: Workshop, job_id: str, status: str) -> bool:
    """Whether nothing is left to be removed of this job, which ended with `status`; if not, another time has to do."""
    run = workshop.run_of(job_id)
    if not await asyncio.to_thread(_has_remains, run, status):
        return True
    if not await asyncio.to_thread(is_free, run.lock):
        return False  # a process that an earlier server left still writes there
    if status == "failed":
        await asyncio.to_thread(_keep_aside, run, workshop.settings.data_dir / UNSERVED)
    if status != "succeeded" and not await _discard(workshop, run, is_kept=status == "failed"):
        return False
    await checkpoints.let_go(workshop, job_id)
    await checkpoints.forget_gone(workshop, job_id)
    await asyncio.to_thread(run.remove_workings)
    return True


def _has_remains(run: RunDirectory, status: str) -> bool:
    """A result that the failed job of a whole model left lies where it is kept, and doesn't count."""
    is_unwanted = status == "cancelled" or (status == "failed" and run.makes_adapter)
    return run.has_workings or (is_unwanted and run.output_dir is not None and run.output_dir.exists())


async def _discard(workshop: Workshop, run: RunDirectory, *, is_kept: bool) -> bool:
    """Whether the result is gone, out of the engine's hands first. One that is kept where it lies is let lie."""
    output_dir = run.output_dir
    if output_dir is None or (is_kept and not run.makes_adapter):
        await asyncio.to_thread(run.remove_partial)
        return True
    if run.is_done and not await checkpoints.remove(workshop.registry, output_dir.name):
        return False  # a request uses it, and the engine would die without its files
    await asyncio.to_thread(run.remove_result)
    return True


def _keep_aside(run: RunDirectory, folder: Path) -> None:
    """A second name for each file of the finished adapter, in a folder where nobody serves it."""
    output_dir = run.output_dir
    if output_dir is None or not (run.makes_adapter and run.is_done):
        return
    kept = folder / output_dir.name
    if kept.exists():
        return
    partial = folder / f".partial-{output_dir.name}"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(output_dir, partial, copy_function=link_or_copy)
    partial.rename(kept)
