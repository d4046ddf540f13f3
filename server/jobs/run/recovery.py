"""What a starting server makes of what the one before it left: nothing is lost, nothing done twice."""

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
from server.jobs.run.context import Workshop
from server.storage.tables import JobRow

RESTARTED = "The server was restarted; the job goes on from its last checkpoint"
PARTIAL = ".partial-"
"""How the name of an adapter's folder begins that is being written."""
ABANDONED_S = 600.0
"""A folder that nothing was added to for so long is nobody's: an import may run beside the server that starts."""

logger = logging.getLogger(__name__)


async def take_up(workshop: Workshop) -> list[JobRow]:
    """The jobs whose training has ended but whose end is still to be seen to.

    Those that were being trained are in the queue again, and what a death left of checkpoints and imports is removed. A
    process that an earlier server left may go on for a moment, and holds its run directory until it has ended.
    """
    await _clear(workshop)
    finished, broken_off = await asyncio.to_thread(_running, workshop)
    for job in broken_off:
        await workshop.database.run(lambda session, job=job: _put_back(session, job))  # type: ignore[misc]
    return finished


def _running(workshop: Workshop) -> tuple[list[JobRow], list[JobRow]]:
    with workshop.database.session() as session:
        jobs = session.scalars(select(JobRow).where(JobRow.status == "running").order_by(JobRow.number)).all()
    finished = [job for job in jobs if workshop.run_of(job.id).is_done]
    return finished, [job for job in jobs if job not in finished]


def _put_back(session: Session, job: JobRow) -> None:
    if not job.pause_requested:
        states.requeue(session, job.id, RESTARTED)
    else:
        states.requeue(session, job.id, "Job paused; the server was restarted meanwhile")


async def _clear(workshop: Workshop) -> None:
    """Removes checkpoints that nobody was told of, those beyond what is kept, rows without one, and half adapters."""
    without_result = select(JobRow).where(JobRow.status.in_(("cancelled", "failed")))
    ended = await workshop.database.run(lambda session: session.scalars(without_result).all())
    await checkpoints.remove_unnoted(workshop, {job.id: job for job in ended})
    await checkpoints.let_go_of_all(workshop)
    await checkpoints.forget_gone(workshop)
    wanted = select(JobRow.adapter_id).where(JobRow.status.in_(states.NOT_ENDED))
    expected = set(await workshop.database.run(lambda session: session.scalars(wanted).all()))
    if removed := await asyncio.to_thread(_remove_partial, workshop.settings.adapters_dir, expected):
        logger.info("%d half-written adapters were left over; they are removed", removed)


def _remove_partial(adapters_dir: Path, expected: Collection[str]) -> int:
    """How many folders were removed of adapters that nobody writes any more.

    expected: ids of adapters whose jobs go on, maybe in a process that an earlier server left.
    """
    count = 0
    for path in adapters_dir.glob(f"{PARTIAL}*"):
        is_abandoned = path.name.removeprefix(PARTIAL) not in expected and _age_s(path) > ABANDONED_S
        if is_abandoned:
            shutil.rmtree(path, ignore_errors=True)
            count += 1
    return count


def _age_s(folder: Path) -> float:
    """Seconds since something was last written there; 0 for what is gone this moment."""
    try:
        return time.time() - max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return 0.0
