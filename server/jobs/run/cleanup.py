"""Cleanup after a job has ended: removes what only its run needed, and an unwanted result.

Events, metrics and settings stay. The result of a finished training is never lost because its job failed: it is moved
to a folder that isn't served. Every step may be interrupted and repeated.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from adapter_format.disk import is_locked
from server.files.contents import link_or_copy
from server.jobs.run import checkpoints
from server.jobs.run.context import JobContext
from server.jobs.run_directory import RunDirectory

UNSERVED = "unserved"
"""Folder in the data directory for results that aren't served."""


async def clean_up(context: JobContext, job_id: str, status: str) -> bool:
    """Clean up after this job, which ended with `status`. Return whether that is complete; if not, call again later."""
    run = context.get_run(job_id)
    if not await asyncio.to_thread(_needs_cleanup, run, status):
        return True
    if await asyncio.to_thread(is_locked, run.lock):
        return False  # a process of an earlier server is still writing there
    if status == "failed":
        await asyncio.to_thread(_keep_result, run, context.settings.data_dir / UNSERVED)
    if status != "succeeded" and not await _remove_result(context, run, is_kept=status == "failed"):
        return False
    await checkpoints.prune(context, job_id)
    await checkpoints.delete_orphaned_rows(context, job_id)
    await asyncio.to_thread(run.remove_working_files)
    return True


def _needs_cleanup(run: RunDirectory, status: str) -> bool:
    """Return whether anything is to be removed. A failed job's whole model already lies where it is kept."""
    is_unwanted = status == "cancelled" or (status == "failed" and run.makes_adapter)
    return run.has_working_files or (is_unwanted and run.output_dir is not None and run.output_dir.exists())


async def _remove_result(context: JobContext, run: RunDirectory, *, is_kept: bool) -> bool:
    """Remove the result, unloading it first, unless it is kept where it is. Return whether that is done."""
    output_dir = run.output_dir
    if output_dir is None or (is_kept and not run.makes_adapter):
        await asyncio.to_thread(run.remove_partial)
        return True
    if run.is_done and not await checkpoints.remove(context.registry, output_dir.name):
        return False  # a request is using it, and the engine would crash without its files
    await asyncio.to_thread(run.remove_result)
    return True


def _keep_result(run: RunDirectory, folder: Path) -> None:
    """Hard-link each file of the finished adapter into a folder that isn't served."""
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
