"""What a starting server makes of what the one before it left: nothing is lost, nothing done twice."""

from __future__ import annotations

import asyncio

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.jobs import checkpoints, transitions
from server.jobs.job_run import discard
from server.jobs.workshop import Workshop
from server.tables import JobRow

RESTARTED = "The server was restarted; the job goes on from its last checkpoint"


async def take_up(workshop: Workshop) -> list[JobRow]:
    """The jobs whose training has ended but whose end is still to be seen to.

    Those that were being trained are in the queue again, and what is left of ended jobs' results is removed. A process
    that an earlier server left may go on for a moment, and holds its run directory until it has ended.
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
        transitions.requeue(session, job.id, RESTARTED)
    else:
        transitions.requeue(session, job.id, "Job paused; the server was restarted meanwhile")


async def _clear(workshop: Workshop) -> None:
    """Removes results of jobs that were cancelled or failed, and checkpoints that nobody was told of."""
    without_result = select(JobRow).where(JobRow.status.in_(("cancelled", "failed")))
    ended = await workshop.database.run(lambda session: session.scalars(without_result).all())
    for job in ended:
        run = workshop.run_of(job.id)
        if await asyncio.to_thread(lambda run=run: bool(run.output_dir and run.output_dir.exists())):  # type: ignore[misc]
            await discard(workshop, run)
    await checkpoints.remove_unnoted(workshop, {job.id: job for job in ended})
