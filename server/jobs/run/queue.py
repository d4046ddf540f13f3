"""Runs what is in the queue: a process a job, as many as the machine holds.

The database says what is to be done; this loop looks at it whenever it is woken, and once a second. It holds nothing
that would be missed after a crash.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from server.files.check import check_for_job
from server.files.store import FileStore
from server.jobs import states
from server.jobs.create import inputs
from server.jobs.events import add_event
from server.jobs.run import finish
from server.jobs.run.capacity import Started, why_wait
from server.jobs.run.cleanup import clear
from server.jobs.run.context import Workshop
from server.jobs.run.job_run import JobRun
from server.jobs.run.recovery import take_up
from server.settings import Settings
from server.storage.database import Database
from server.storage.tables import JobRow, now_s
from server.wire.background import BackgroundLoop
from serving import Engine, Registry
from serving.engines.accelerator import Accelerator
from training.config.config import Method

TRAINING = (sys.executable, "-m", "training")
MAX_CHECKS = 2
"""Jobs whose files are looked through at once; each check is a process."""
_TIMER_S = 1.0
_CLEARED_AT_ONCE = 100
"""Ended jobs that one look removes remains of, so that nobody else waits long for the next."""
_UNSEEN_S = 60
"""An end may be written so many seconds after the time that it bears: a transaction waits its turn."""

logger = logging.getLogger(__name__)


class Runner:
    """The one that starts, watches, stops and ends jobs."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        engine: Engine,
        registry: Registry,
        files: FileStore,
        *,
        command: Sequence[str] = TRAINING,
        on_end: Callable[[], None] = lambda: None,
        accelerator: Accelerator | None = None,
    ) -> None:
        """command: what is started with the run directory as its last argument.

        on_end: called when a job has succeeded or failed, which is written by then.
        accelerator: what the trainings share with the engines; by default both run at once.
        """
        self._accelerator = accelerator or Accelerator()
        self._workshop = Workshop(settings, database, engine, registry, files, tuple(command), on_end)
        self._command = self._workshop.command
        self._looking = BackgroundLoop(self._look, "The queue can't be looked at now", pause_s=_TIMER_S)
        self._runs: dict[str, JobRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """Of the runs, by job."""
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._told_to_wait: set[str] = set()
        self._to_clear: dict[str, str] = {}
        """Jobs that have ended, with their status, of which something may be left to be removed."""
        self._seen_ended_at = 0
        """Jobs that ended before this, in Unix seconds, have been noticed."""

    async def start(self) -> None:
        """Takes up what an earlier server left, and begins to work."""
        self._workshop.leaving.clear()
        self._accelerator.open()
        self._command = await asyncio.to_thread(self._workshop.command_here)
        for job in await take_up(self._workshop):
            self._run(job)
        self._looking.start()

    async def stop(self) -> None:
        """Returns when no process of a job is left; each has written a checkpoint if it could."""
        self._workshop.leaving.set()
        self._accelerator.close()
        await self._looking.stop()
        for task in self._checks.values():
            task.cancel()
        for run in self._runs.values():
            run.leave()
        await asyncio.gather(*self._checks.values(), *self._tasks.values(), return_exceptions=True)

    def wake(self) -> None:
        """Says that there may be something to do: a job is new, or its status was changed. From any thread."""
        self._looking.wake()

    async def _look(self) -> None:
        await self._tell_runs()
        await self._start_checks()
        while await self._start_next():
            pass
        await self._clear_ended()

    async def _tell_runs(self) -> None:
        """Tells each run what its row says: whether it was paused, or cancelled.

        A row that says `running` and has no run lost it to a fault, such as a database that was away: it is put back.
        """
        concerned = or_(JobRow.id.in_(list(self._runs)), JobRow.status == "running")
        rows = select(JobRow.id, JobRow.status, JobRow.pause_requested).where(concerned)
        for job_id, status, pause_requested in await self._workshop.database.run(
            lambda session: session.execute(rows).all()
        ):
            if job_id in self._runs:
                self._runs[job_id].notice(status, pause_requested)
            elif status == "running":
                await self._workshop.database.run(partial(_put_back, job_id))

    async def _start_checks(self) -> None:
        ready = JobRow.status == "validating_files", ~inputs.awaits_a_check()
        first = select(JobRow).where(*ready).order_by(JobRow.number).limit(100)
        for job in await self._workshop.database.run(lambda session: session.scalars(first).all()):
            if len(self._checks) >= MAX_CHECKS:
                return
            if job.id not in self._checks:
                self._keep(self._checks, job.id, self._check(job))

    async def _check(self, job: JobRow) -> None:
        """Looks through the job's files, and moves it into the queue or has it fail."""
        workshop, run = self._workshop, self._workshop.run_of(job.id)
        try:
            method: Method = job.method  # type: ignore[assignment]
            found = await check_for_job(
                run.training_file,
                run.validation_file,
                method,
                file_format=run.config.get("file_format", "auto"),
                on_leakage=run.config.get("on_leakage", "refuse"),
            )
        except Exception:  # whatever it is, one job's files are no reason for the others to stand still
            logger.exception("The files of job %s can't be checked", job.id)
            message = "The job's files couldn't be checked; the server's log says why. Create the job again."
            await finish.fail(workshop, job, "server_error", message)
            return
        if found.code is None:
            await workshop.transaction(lambda session: states.validated(session, job.id))
        else:
            await finish.fail(workshop, job, found.code, found.message or found.code, found.param)

    async def _start_next(self) -> bool:
        """Whether the first job of the queue was started, or at least isn't there any more."""
        first = select(JobRow).where(JobRow.status == "queued").order_by(JobRow.number).limit(1)
        job = await self._workshop.database.run(lambda session: session.scalar(first))
        if job is None or job.id in self._runs:  # its last process is being seen off
            return False
        running = [Started(run.run, run.has_settled) for run in self._runs.values()]
        limit = self._workshop.settings.max_running_jobs
        division = self._accelerator.division
        reason = await asyncio.to_thread(why_wait, self._workshop.run_of(job.id), running, limit, None, division)
        if reason is not None:
            await self._tell_to_wait(job.id, reason)
            return False
        if await self._workshop.database.run(partial(_claimed, job.id)):
            self._told_to_wait.discard(job.id)
            self._run(await self._workshop.database.run(lambda session: states.read(session, job.id)))
        return True

    async def _tell_to_wait(self, job_id: str, reason: str) -> None:
        if job_id not in self._told_to_wait:
            self._told_to_wait.add(job_id)
            await self._workshop.database.run(partial(_say_why, job_id, reason))

    async def _clear_ended(self) -> None:
        """Removes what jobs leave behind that have ended since the last time; the first time, that ever ended."""
        now = now_s()
        since = JobRow.finished_at >= self._seen_ended_at
        ended = select(JobRow.id, JobRow.status).where(JobRow.status.in_(states.ENDED), since)
        found = await self._workshop.database.run(lambda session: session.execute(ended).all())
        self._to_clear |= {row.id: row.status for row in found}
        self._seen_ended_at = now - _UNSEEN_S
        for job_id in list(self._to_clear)[:_CLEARED_AT_ONCE]:
            status = self._to_clear.pop(job_id)
            at_work = job_id in self._runs or job_id in self._checks
            if at_work or not await clear(self._workshop, job_id, status):
                self._to_clear[job_id] = status  # behind the others

    def _run(self, job: JobRow) -> None:
        run = self._runs[job.id] = JobRun(self._workshop, job, self._command, self._accelerator)
        self._keep(self._tasks, job.id, run.work())

    def _keep(self, tasks: dict[str, asyncio.Task[None]], job_id: str, work: Coroutine[None, None, None]) -> None:
        """Does the work in a task that is known until it is done."""
        task = tasks[job_id] = asyncio.create_task(work)

        def done(task: asyncio.Task[None]) -> None:
            del tasks[job_id]
            if tasks is self._tasks:
                del self._runs[job_id]
            if not task.cancelled() and (error := task.exception()):
                logger.error("The work on job %s ended unforeseen", job_id, exc_info=error)
            self._looking.wake()

        task.add_done_callback(done)


def _put_back(job_id: str, session: Session) -> None:
    states.requeue(session, job_id, "The job lost its place at work and is in the queue again", level="warn")


def _say_why(job_id: str, reason: str, session: Session) -> None:
    """Tells what the job waits for, if it still does: nothing comes after the event of an end."""
    if states.change(session, job_id, {"queued"}, status="queued"):
        add_event(session, job_id, reason)


def _claimed(job_id: str, session: Session) -> bool:
    return states.claim(session, job_id)
