"""Recovery at startup of the jobs that an earlier server left: nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.jobs import states
from server.jobs.run import checkpoints
from server.jobs.run.context import JobContext
from server.storage.tables import JobRow

RESTARTED = "The server was restarted; the job resumes from its last checkpoint"
PARTIAL = ".partial-"
"""Prefix of the folder of an adapter that is being written."""
ABANDONED_S = 600.0
"""A folder without changes for this long is abandoned; an import may be running beside the starting server."""

logger = logging.getLogger(__name__)


async def recover_jobs(context: JobContext) -> list[JobRow]:
    """Recover the running jobs; return those whose training has ended and that have to be finished.

    Jobs that were being trained are requeued, and unfinished checkpoints and imports are removed. A process of an
    earlier server may run on for a moment, and locks its run directory until it has ended.
    """
    await _clean_up(context)
    finished, interrupted = await asyncio.to_thread(_read_running, context)
    for job in interrupted:
        await context.database.run(lambda session, job=job: _requeue(session, job))  # type: ignore[misc]
    return finished


def _read_running(context: JobContext) -> tuple[list[JobRow], list[JobRow]]:
    with context.database.session() as session:
        jobs = session.scalars(select(JobRow).where(JobRow.status == "running").order_by(JobRow.number)).all()
    finished = [job for job in jobs if context.get_run(job.id).is_done]
    return finished, [job for job in jobs if job not in finished]


def _requeue(session: Session, job: JobRow) -> None:
    if not job.pause_requested:
        states.requeue(session, job.id, RESTARTED)
    else:
        states.requeue(session, job.id, "Job paused; the server was restarted")


async def _clean_up(context: JobContext) -> None:
    """Remove unrecorded and surplus checkpoints, rows without a checkpoint, and partial adapters."""
    without_result = select(JobRow).where(JobRow.status.in_(("cancelled", "failed")))
    ended = await context.database.run(lambda session: session.scalars(without_result).all())
    await checkpoints.remove_unrecorded(context, {job.id: job for job in ended})
    await checkpoints.prune_all(context)
    await checkpoints.delete_orphaned_rows(context)
    wanted = select(JobRow.adapter_id).where(JobRow.status.in_(states.NOT_ENDED))
    expected = set(await context.database.run(lambda session: session.scalars(wanted).all()))
    if removed := await asyncio.to_thread(_remove_partial, context.settings.adapters_dir, expected):
        logger.info("Removing %d incomplete adapters", removed)


def _remove_partial(adapters_dir: Path, expected: Collection[str]) -> int:
    """Remove the folders of abandoned partial adapters; return how many there were.

    expected: ids of adapters whose jobs continue, possibly in a process of an earlier server.
    """
    count = 0
    for path in adapters_dir.glob(f"{PARTIAL}*"):
        is_abandoned = path.name.removeprefix(PARTIAL) not in expected and _get_age_s(path) > ABANDONED_S
        if is_abandoned:
            shutil.rmtree(path, ignore_errors=True)
            count += 1
    return count


def _get_age_s(folder: Path) -> float:
    """Return the seconds since something was last written there; 0 if it has just disappeared."""
    try:
        return time.time() - max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return 0.0
