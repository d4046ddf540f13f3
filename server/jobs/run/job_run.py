"""One running job, step by step: starts and watches its process, stores its events, and finishes the job.

Whether the job should run is decided in the database and passed on by `update_status`. Each change of status is
conditional, so an earlier pause or cancellation always wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.jobs import states
from server.jobs.run import checkpoints, finish
from server.jobs.run.cleanup import clean_up
from server.jobs.run.context import JobContext, is_temporary
from server.jobs.run.event_words import EventTranslator, NewEvent
from server.jobs.run.process import start_training, wait_until_free
from server.jobs.run_directory import RunDirectory
from server.storage.tables import JobEventRow, JobRow, now_s
from serving import Adapter, AdapterError
from serving.engines.accelerator import Accelerator, AcceleratorSlot
from serving.engines.racing import first_of
from serving.machine.kept_process import KeptProcess
from training.record.progress import ProgressEvent, read_events

MAX_ATTEMPTS = 3
"""How often in a row a job is resumed whose process died without an error and without a new checkpoint."""
_POLL_S = 0.1
Goal = Literal["train", "pause", "cancel", "shut down"]
"""What the process should do: train; write a checkpoint and pause; end at once, because the job was cancelled; or write
a checkpoint and end, because the server stops."""

logger = logging.getLogger(__name__)


class JobRun:
    """Runs one job whose status is `running`."""

    def __init__(self, context: JobContext, job: JobRow, command: tuple[str, ...], accelerator: Accelerator) -> None:
        """command: the training command. accelerator: shared with the engines."""
        self._context, self._job, self._command, self._accelerator = context, job, command, accelerator
        self._turn: AcceleratorSlot | None = None
        self.run: RunDirectory = context.get_run(job.id)
        self._translator = EventTranslator(lambda text: self.run.replace_paths(text, job))
        self._offset = job.events_offset
        self._hyperparameters: dict[str, Any] | None = None
        self._process: KeptProcess | None = None
        self._goal: Goal = "train"
        self._goal_changed = asyncio.Event()
        self._is_shutting_down = False
        self._checkpoint_before = 0
        self.has_allocated = False
        """Whether its process has done a step, and so has allocated its memory."""

    def update_status(self, status: str, pause_requested: bool) -> None:
        """Adopt the current status of the job's row.

        A stop isn't taken back: a job that was resumed meanwhile starts again.
        """
        if status == "cancelled":
            self._set_goal("cancel")
        elif status == "running" and pause_requested and self._goal == "train":
            self._set_goal("pause")

    def shut_down(self) -> None:
        """Let the process write a checkpoint and end; the row stays `running`, for the next server to recover."""
        if self._goal == "train":
            self._set_goal("shut down")
        self._is_shutting_down = True

    async def work(self) -> None:
        """Run the job until its process is gone and its row has the outcome."""
        async with self._accelerator.slot(self._add_wait_event) as turn:
            self._turn = turn
            if not await self._run_to_end(turn):
                return
        await self._clean_up()

    async def _run_to_end(self, turn: AcceleratorSlot) -> bool:
        """Run the job; return whether its row has the outcome. The process is gone in any case."""
        try:
            await self._work(turn)
        except Exception as error:
            if is_temporary(error):
                await self._stop_until_database_is_back(error)
                return False
            logger.exception("Unexpected error in job %s", self._job.id)
            message = (
                "An unexpected error occurred while running this job; see the server's log for details. Create "
                "the job again."
            )
            await finish.fail(self._context, self._job, "server_error", message)
        finally:
            if self._process:
                await self._process.kill()
        return True

    async def _stop_until_database_is_back(self, error: Exception) -> None:
        """Let the process write a checkpoint and end. The row stays `running`, so the job is resumed later."""
        logger.warning("Job %s is stopped until the database is available: %s", self._job.id, error)
        if self._process:
            await self._process.stop()

    async def _work(self, turn: AcceleratorSlot) -> None:
        # 1. Events of an earlier process, which may still be running.
        await self._restore_events()
        await self._ingest()
        if not await self._wait_until_free():
            return
        await self._ingest()
        # 2. That process may have finished just before its server ended.
        if await self._finish_if_ended(turn):
            return
        # 3. The process, once the accelerator is free for it.
        code = await self._train() if await self._wait_for_accelerator(turn) else None
        if self.run.is_done and self._goal != "cancel":
            # The process still writes its last lines and plots for a second. Only an engine that needs its memory back
            # has to wait for that.
            if self._accelerator.is_exclusive:
                await self._wait_for_exit()
            await self._finish(turn)
            await self._wait_for_exit()
        elif code is None and self._goal == "train":
            await self._fail_without_result()
        elif self._goal == "pause":
            await self._record_stop()
        elif self._goal == "train":
            await self._handle_exit(code)

    async def _restore_events(self) -> None:
        query = select(JobEventRow.type, JobEventRow.message, JobEventRow.data).where(
            JobEventRow.job_id == self._job.id
        )
        events = await self._context.run_transaction(lambda session: session.execute(query).all())
        self._translator.restore(
            (message for kind, message, _ in events if kind == "message"),
            (metrics for kind, _, metrics in events if kind == "metrics"),
        )

    async def _wait_until_free(self) -> bool:
        """Wait until no other process uses the run directory; return False if the goal changed first."""
        if await self._run_unless_stopped(wait_until_free(self.run, self._context.settings.job_stop_grace_s)):
            return True
        if self._goal == "pause":
            await self._record_stop()
        return False

    async def _wait_for_accelerator(self, turn: AcceleratorSlot) -> bool:
        """Wait for the accelerator; return False if the goal changed first."""
        return await self._run_unless_stopped(turn.acquire_for_training())

    async def _run_unless_stopped(self, work: Coroutine[None, None, None]) -> bool:
        """Do the work unless the goal changes first; return whether it was done."""

        async def done() -> bool:
            await work
            return True

        async def goal_changed() -> bool:
            return not await self._goal_changed.wait()

        return await first_of(done(), goal_changed())

    async def _add_wait_event(self, message: str) -> None:
        """Add an event that says what the job waits for, unless it has just been cancelled."""

        def add(session: Session) -> None:
            if states.change(session, self._job.id, {"running"}, status="running"):
                states.add_event(session, self._job.id, message)

        await self._context.run_transaction(add)

    async def _record_stop(self) -> None:
        step = self.run.last_checkpoint
        await self._context.run_transaction(lambda session: states.mark_stopped(session, self._job.id, step))

    async def _finish_if_ended(self, turn: AcceleratorSlot) -> bool:
        if self.run.is_done:
            await self._finish(turn)
            return True
        last = await asyncio.to_thread(self.run.read_last_event)
        if last and _is_failure(last):
            await finish.fail_from_event(self._context, self._job, self.run, last)
            return True
        if last and last.type == "finished":
            await self._fail_without_result()
            return True
        return False

    async def _fail_without_result(self) -> None:
        """Fail a job whose result was deleted: whoever deleted it can't want it to be trained again."""
        message = "The result was deleted before the job ended. Create the job again if you need it."
        await finish.fail(self._context, self._job, "result_deleted", message)

    async def _finish(self, turn: AcceleratorSlot) -> None:
        """Finish the job; stop early if it is cancelled or the server stops."""
        task = asyncio.create_task(self._finish_with_engine(turn))
        while not task.done():
            if self._is_shutting_down or self._goal == "cancel":
                task.cancel()  # a database write in progress is completed all the same
            await asyncio.wait({task}, timeout=_POLL_S)
        if not task.cancelled():
            task.result()

    async def _finish_with_engine(self, turn: AcceleratorSlot) -> None:
        if self.run.makes_adapter:
            await turn.switch_to_serving()
        await finish.finish(self._context, self._job, self.run)

    async def _train(self) -> int | None:
        """Run the process; return its exit code, or None if its result is there before it has ended."""
        if self._goal != "train":
            return None
        executable = self._context.command[0]
        grace_s = self._context.settings.job_stop_grace_s
        self._checkpoint_before = self.run.last_checkpoint
        division = self._accelerator.division
        self._process = process = await start_training(
            self._command, executable, self.run, self._job, grace_s, division
        )
        exited = asyncio.create_task(process.wait())
        try:
            while not exited.done() and not self._goal_changed.is_set():
                if await self._ingest():
                    return None
                await self._wait_for_poll(exited)
            await self._stop(process)
            code = await exited
        finally:
            exited.cancel()
        self._process = None
        await self._ingest()
        return code

    async def _stop(self, process: KeptProcess) -> None:
        """Stop the process unless the goal is to train; store its events meanwhile."""
        if self._goal == "train":
            return
        task = asyncio.create_task(process.kill() if self._goal == "cancel" else process.stop())
        while not task.done():
            if self._goal == "cancel":
                await process.kill()
            else:
                await self._ingest()
            await asyncio.wait({task}, timeout=_POLL_S)
        task.result()

    async def _wait_for_poll(self, exited: asyncio.Task[int]) -> None:
        goal_changed = asyncio.create_task(self._goal_changed.wait())
        await asyncio.wait({exited, goal_changed}, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
        goal_changed.cancel()

    async def _wait_for_exit(self) -> None:
        """Give the process time to exit after its result is in use."""
        if self._process:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._context.settings.job_stop_grace_s):
                    await self._process.wait()
            await self._process.kill()
            self._process = None

    async def _handle_exit(self, code: int | None) -> None:
        last = await asyncio.to_thread(self.run.read_last_event)
        if last and _is_failure(last):
            await finish.fail_from_event(self._context, self._job, self.run, last)
            return
        how = f"was ended by signal {code - 128}" if code and code > 128 else f"ended with exit code {code}"
        progressed = self.run.last_checkpoint > self._checkpoint_before
        attempts = 1 if progressed else self._job.attempts + 1
        if attempts > MAX_ATTEMPTS:
            message = f"The training process {how}, {attempts} times in a row without a new checkpoint. "
            remedy = "The machine may be out of memory: lower batch_size or max_length, or free some memory."
            await finish.fail(self._context, self._job, "training_process_died", message + remedy)
            return
        message = f"The training process {how} without an error message; the job resumes from its last checkpoint"
        await self._context.run_transaction(
            lambda session: states.requeue(session, self._job.id, message, level="warn", attempts=attempts)
        )

    async def _ingest(self) -> bool:
        """Store the process's new events; return whether its result is in place."""
        if self.run.events_bytes == self._offset:
            return False
        events, offset = await asyncio.to_thread(read_events, self.run.path, self._offset)
        if offset == self._offset:
            return False
        new_events: list[NewEvent | _PublishedCheckpoint] = []
        for event in events:
            if event.type == "checkpoint" and event.step is not None:
                if published := await self._publish(event.step, int(event.created_at)):
                    new_events.append(published)
            elif new_event := self._translator.translate(event):
                new_events.append(new_event)
        values = self._compute_columns(events)
        stored = await self._context.run_transaction(
            lambda session: self._store_events(session, new_events, offset, values)
        )
        self._offset = offset
        if any(isinstance(new, _PublishedCheckpoint) for new in new_events):
            await self._prune_checkpoints(new_events, stored)
        self.has_allocated |= self._process is not None and any(event.type == "step" for event in events)
        return any(event.type == "finished" for event in events)

    async def _publish(self, step: int, at: int) -> NewEvent | _PublishedCheckpoint | None:
        metrics = self._translator.get_checkpoint_metrics(step)
        if not (self.run.makes_adapter and self._context.settings.checkpoints_kept):
            return self._translator.skip_repeated(
                NewEvent(f"Checkpoint created at step {step}", at, data={"step": step})
            )
        try:
            adapter = await checkpoints.publish(self._context, self._job, self.run, step)
        except AdapterError as error:
            reason = self.run.replace_paths(str(error), self._job)
            unserved = f"The checkpoint at step {step} isn't served: {reason}"
            return self._translator.skip_repeated(NewEvent(unserved, at, "warn", data={"step": step}))
        return _PublishedCheckpoint(step, adapter, metrics, at)

    def _store_events(
        self, session: Session, new_events: list[NewEvent | _PublishedCheckpoint], offset: int, values: dict[str, Any]
    ) -> bool:
        as_before = JobRow.events_offset == self._offset
        if not states.change(session, self._job.id, {"running"}, as_before, events_offset=offset, **values):
            return False
        for new in new_events:
            if isinstance(new, _PublishedCheckpoint):
                checkpoints.record(session, self._job.id, new.step, new.adapter, new.metrics, new.at)
            else:
                states.add_event(
                    session,
                    self._job.id,
                    new.message,
                    level=new.level,
                    metrics=new.metrics,
                    data=new.data,
                    created_at=new.created_at,
                )
        return True

    async def _prune_checkpoints(self, new_events: list[NewEvent | _PublishedCheckpoint], stored: bool) -> None:
        if stored:
            await checkpoints.prune(self._context, self._job.id)
            return
        for new in new_events:  # the job ended meanwhile: unrecorded checkpoints are removed
            if isinstance(new, _PublishedCheckpoint) and not await self._is_recorded(new.step):
                await checkpoints.remove(self._context.registry, new.adapter.name)

    async def _is_recorded(self, step: int) -> bool:
        return await self._context.run_transaction(lambda session: checkpoints.is_recorded(session, self._job.id, step))

    def _compute_columns(self, events: list[ProgressEvent]) -> dict[str, Any]:
        """Return the columns that follow from the events: the estimated end, and the values chosen for `auto`."""
        values: dict[str, Any] = {}
        finishes = [finish.estimate_finish(event) for event in events if event.type == "step"]
        if finishes:
            values["estimated_finish"] = finishes[-1]
            if self._turn:
                self._turn.expect([event for event in events if event.type == "step"][-1].remaining_s)
        if any(event.type == "finished" for event in events):
            values["estimated_finish"] = now_s() + round(finish.ENDING_S)
        if self._hyperparameters is None and (plan := self.run.plan):
            self._hyperparameters = values["hyperparameters"] = _resolve_hyperparameters(self._job, plan)
        return values

    def _set_goal(self, goal: Goal) -> None:
        self._goal = goal
        self._goal_changed.set()

    async def _clean_up(self) -> None:
        """Clean up if the job has ended; the runner retries what can't be done now."""
        statement = select(JobRow.status).where(JobRow.id == self._job.id)
        status = await self._context.run_transaction(lambda session: session.scalar(statement))
        if status in states.ENDED:
            await clean_up(self._context, self._job.id, status)


class _PublishedCheckpoint:
    """A published checkpoint that isn't recorded yet."""

    def __init__(self, step: int, adapter: Adapter, metrics: dict[str, Any], at: int) -> None:
        self.step, self.adapter, self.metrics, self.at = step, adapter, metrics, at


def _is_failure(event: ProgressEvent) -> bool:
    """Return whether the run failed by itself; a stopped run is resumed later."""
    return event.type == "failed" and event.code != "interrupted"


def _resolve_hyperparameters(job: JobRow, plan: dict[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters, with each `auto` of OpenAI's three replaced by the chosen value."""
    found = {
        "n_epochs": plan["n_epochs"],
        "batch_size": plan["batch_size"] * plan["gradient_accumulation_steps"],
        "learning_rate_multiplier": float(f"{plan['learning_rate'] / job.base_learning_rate:.10g}"),
    }
    requested = job.hyperparameters
    return {**requested, **{name: value for name, value in found.items() if requested.get(name, "auto") == "auto"}}
