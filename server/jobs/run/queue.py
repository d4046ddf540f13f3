"""Runs the queue: one process per job, as many as the machine can hold.

The database has the queue; the loop reads it whenever it is woken, and once a second. Nothing in memory would be missed
after a crash.
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
from server.jobs.run import finish
from server.jobs.run.capacity import RunningJob, find_wait_reason
from server.jobs.run.cleanup import clean_up
from server.jobs.run.context import JobContext
from server.jobs.run.job_run import JobRun
from server.jobs.run.recovery import recover_jobs
from server.settings import Settings
from server.storage.database import Database
from server.storage.tables import JobRow, now_s
from server.wire.background import BackgroundLoop
from serving import Engine, Registry
from serving.engines.accelerator import Accelerator
from training.config.config import Method

TRAINING = (sys.executable, "-m", "training")
MAX_CHECKS = 2
"""Jobs whose files are checked at the same time, each in a process."""
_TIMER_S = 1.0
_CLEANUP_BATCH = 100
"""Ended jobs that are cleaned up per round, so that the next round isn't delayed for long."""
_UNSEEN_S = 60
"""A job's end may be committed this many seconds after its `finished_at`, since transactions wait for each other."""

logger = logging.getLogger(__name__)


class Runner:
    """Starts, watches, stops and ends jobs."""

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
        """command: the training command; the run directory is appended.

        on_end: called after a job's success or failure has been stored.
        accelerator: shared by trainings and engines; default: both run at once.
        """
        self._accelerator = accelerator or Accelerator()
        self.division = self._accelerator.division
        """What trainings have of this machine."""
        self._context = JobContext(settings, database, engine, registry, files, tuple(command), on_end)
        self._command = self._context.command
        self._loop = BackgroundLoop(self._run_once, "Can't read the queue now", pause_s=_TIMER_S)
        self._runs: dict[str, JobRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """The tasks of the runs, by job id."""
        self._checks: dict[str, asyncio.Task[None]] = {}
        self._reported_waiting: set[str] = set()
        self._to_clean_up: dict[str, str] = {}
        """Ended jobs that may need cleanup, with their status."""
        self._seen_ended_at = 0
        """Jobs that ended before this, in Unix seconds, have been seen."""

    async def start(self) -> None:
        """Recover the jobs of an earlier server, and start working."""
        self._context.stopping.clear()
        self._accelerator.open()
        self._command = await asyncio.to_thread(self._context.build_command)
        for job in await recover_jobs(self._context):
            self._start_run(job)
        self._loop.start()

    async def stop(self) -> None:
        """Stop all processes, letting each write a checkpoint if it can, and return when they have ended."""
        self._context.stopping.set()
        self._accelerator.close()
        await self._loop.stop()
        for task in self._checks.values():
            task.cancel()
        for run in self._runs.values():
            run.shut_down()
        await asyncio.gather(*self._checks.values(), *self._tasks.values(), return_exceptions=True)

    def wake(self) -> None:
        """Read the queue now: a job is new, or its status has changed. Callable from any thread."""
        self._loop.wake()

    async def _run_once(self) -> None:
        await self._update_runs()
        await self._start_checks()
        while await self._start_next():
            pass
        await self._clean_up_ended()

    async def _update_runs(self) -> None:
        """Pass each row's status on to its run: whether it was paused or cancelled.

        A `running` row without a run lost it to a fault, such as an unavailable database: it is requeued.
        """
        concerned = or_(JobRow.id.in_(list(self._runs)), JobRow.status == "running")
        rows = select(JobRow.id, JobRow.status, JobRow.pause_requested).where(concerned)
        for job_id, status, pause_requested in await self._context.database.run(
            lambda session: session.execute(rows).all()
        ):
            if job_id in self._runs:
                self._runs[job_id].update_status(status, pause_requested)
            elif status == "running":
                await self._context.database.run(partial(_requeue, job_id))

    async def _start_checks(self) -> None:
        ready = JobRow.status == "validating_files", ~inputs.is_awaiting_check()
        first = select(JobRow).where(*ready).order_by(JobRow.number).limit(100)
        for job in await self._context.database.run(lambda session: session.scalars(first).all()):
            if len(self._checks) >= MAX_CHECKS:
                return
            if job.id not in self._checks:
                self._track(self._checks, job.id, self._check(job))

    async def _check(self, job: JobRow) -> None:
        """Check the job's files; then queue the job, or fail it."""
        context, run = self._context, self._context.get_run(job.id)
        try:
            method: Method = job.method  # type: ignore[assignment]
            found = await check_for_job(
                run.training_file,
                run.validation_file,
                method,
                file_format=run.config.get("file_format", "auto"),
                on_leakage=run.config.get("on_leakage", "refuse"),
            )
        except Exception:  # whatever it is, one job's files mustn't block the others
            logger.exception("Can't check the files of job %s", job.id)
            message = "The job's files couldn't be checked; see the server's log for details. Create the job again."
            await finish.fail(context, job, "server_error", message)
            return
        if found.code is None:
            await context.run_transaction(lambda session: states.mark_validated(session, job.id))
        else:
            await finish.fail(context, job, found.code, found.message or found.code, found.param)

    async def _start_next(self) -> bool:
        """Start the first job of the queue; return whether it has left the queue."""
        first = select(JobRow).where(JobRow.status == "queued").order_by(JobRow.number).limit(1)
        job = await self._context.database.run(lambda session: session.scalar(first))
        if job is None or job.id in self._runs:  # its previous process is still ending
            return False
        running = [RunningJob(run.run, run.has_allocated) for run in self._runs.values()]
        limit = self._context.settings.max_running_jobs
        division = self._accelerator.division
        reason = await asyncio.to_thread(
            find_wait_reason, self._context.get_run(job.id), running, limit, None, division
        )
        if reason is not None:
            await self._report_waiting(job.id, reason)
            return False
        if await self._context.database.run(partial(_claim, job.id)):
            self._reported_waiting.discard(job.id)
            self._start_run(await self._context.database.run(lambda session: states.read(session, job.id)))
        return True

    async def _report_waiting(self, job_id: str, reason: str) -> None:
        if job_id not in self._reported_waiting:
            self._reported_waiting.add(job_id)
            await self._context.database.run(partial(_add_wait_event, job_id, reason))

    async def _clean_up_ended(self) -> None:
        """Clean up after jobs that have ended since the last round; in the first round, after all that have ever
        ended."""
        now = now_s()
        since = JobRow.finished_at >= self._seen_ended_at
        ended = select(JobRow.id, JobRow.status).where(JobRow.status.in_(states.ENDED), since)
        found = await self._context.database.run(lambda session: session.execute(ended).all())
        self._to_clean_up |= {row.id: row.status for row in found}
        self._seen_ended_at = now - _UNSEEN_S
        for job_id in list(self._to_clean_up)[:_CLEANUP_BATCH]:
            status = self._to_clean_up.pop(job_id)
            at_work = job_id in self._runs or job_id in self._checks
            if at_work or not await clean_up(self._context, job_id, status):
                self._to_clean_up[job_id] = status  # behind the others

    def _start_run(self, job: JobRow) -> None:
        run = self._runs[job.id] = JobRun(self._context, job, self._command, self._accelerator)
        self._track(self._tasks, job.id, run.work())

    def _track(self, tasks: dict[str, asyncio.Task[None]], job_id: str, work: Coroutine[None, None, None]) -> None:
        """Run the work in a task that is tracked until it is done."""
        task = tasks[job_id] = asyncio.create_task(work)

        def done(task: asyncio.Task[None]) -> None:
            del tasks[job_id]
            if tasks is self._tasks:
                del self._runs[job_id]
            if not task.cancelled() and (error := task.exception()):
                logger.error("Job %s ended unexpectedly", job_id, exc_info=error)
            self._loop.wake()

        task.add_done_callback(done)


def _requeue(job_id: str, session: Session) -> None:
    states.requeue(session, job_id, "The job was interrupted and is queued again", level="warn")


def _add_wait_event(job_id: str, reason: str, session: Session) -> None:
    """Add an event with what the job waits for, if it is still queued: nothing may follow the event of its end."""
    if states.change(session, job_id, {"queued"}, status="queued"):
        states.add_event(session, job_id, reason)


def _claim(job_id: str, session: Session) -> bool:
    return states.claim(session, job_id)
