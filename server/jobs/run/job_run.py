"""One running job, told in order: its process is started and watched, what it tells is stored, and its end seen to.

Whether it should run at all is in the database; it is told here by `notice`. Each change of status is conditional, so a
pause or cancellation that came first always stands.
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
from server.jobs.events import add_event
from server.jobs.run import checkpoints, finish
from server.jobs.run.cleanup import clear
from server.jobs.run.context import Workshop, is_passing
from server.jobs.run.event_words import Narrator, Told
from server.jobs.run.process import start_training, wait_until_free
from server.jobs.run_directory import RunDirectory
from server.storage.tables import JobEventRow, JobRow, now_s
from serving import Adapter, AdapterError
from serving.engines.accelerator import Accelerator, AcceleratorSlot
from serving.engines.racing import first_of
from serving.machine.kept_process import KeptProcess
from training.record.progress import ProgressEvent, read_events

MAX_ATTEMPTS = 3
"""Times in a row that a job goes on whose process died without a word and without a new checkpoint."""
_POLL_S = 0.1
Wish = Literal["go on", "make way", "give up", "leave"]
"""What is wanted of the process: to train; to write a checkpoint and pause; to end at once, as the job is cancelled; or
to write a checkpoint because the server stops."""

logger = logging.getLogger(__name__)


class JobRun:
    """A job whose row says `running`, and what is done for it."""

    def __init__(self, workshop: Workshop, job: JobRow, command: tuple[str, ...], accelerator: Accelerator) -> None:
        """command: as this machine is to run it. accelerator: what the training shares with the engines."""
        self._workshop, self._job, self._command, self._accelerator = workshop, job, command, accelerator
        self._turn: AcceleratorSlot | None = None
        self.run: RunDirectory = workshop.run_of(job.id)
        self._narrator = Narrator(lambda text: self.run.without_paths(text, job))
        self._offset = job.events_offset
        self._hyperparameters: dict[str, Any] | None = None
        self._process: KeptProcess | None = None
        self._wish: Wish = "go on"
        self._wished = asyncio.Event()
        self._leaving = False
        self._checkpoint_before = 0
        self.has_settled = False
        """Whether its process has done a step, and so has taken what memory it takes."""

    def notice(self, status: str, pause_requested: bool) -> None:
        """Takes up what the job's row says now.

        A process that has been told to stop isn't told otherwise: a job that was resumed meanwhile starts again.
        """
        if status == "cancelled":
            self._want("give up")
        elif status == "running" and pause_requested and self._wish == "go on":
            self._want("make way")

    def leave(self) -> None:
        """Has the process write a checkpoint and end; the row stays `running`, for the next server to take up."""
        if self._wish == "go on":
            self._want("leave")
        self._leaving = True

    async def work(self) -> None:
        """Returns when the job's process is gone and the row says what is to become of it."""
        async with self._accelerator.slot(self._say_what_it_waits_for) as turn:
            self._turn = turn
            if not await self._work_to_an_end(turn):
                return
        await self._clean_up()

    async def _work_to_an_end(self, turn: AcceleratorSlot) -> bool:
        """Whether the row says what is to become of the job; the process is gone in any case."""
        try:
            await self._work(turn)
        except Exception as error:
            if is_passing(error):
                await self._make_way(error)
                return False
            logger.exception("Job %s met something unforeseen", self._job.id)
            message = (
                "The server met something unforeseen in running this job; its log says what. Create the job again."
            )
            await finish.fail(self._workshop, self._job, "server_error", message)
        finally:
            if self._process:
                await self._process.kill()
        return True

    async def _make_way(self, error: Exception) -> None:
        """Has the process write a checkpoint and end. The row says `running`, so whoever reads it next goes on."""
        logger.warning("Job %s stops until the database is back: %s", self._job.id, error)
        if self._process:
            await self._process.stop()

    async def _work(self, turn: AcceleratorSlot) -> None:
        # 1. What an earlier process told, and may still be telling.
        await self._remember()
        await self._ingest()
        if not await self._is_free():
            return
        await self._ingest()
        # 2. It may have ended just before its server did.
        if await self._has_ended(turn):
            return
        # 3. The process, once the accelerator is free for it.
        code = await self._train() if await self._has_its_turn(turn) else None
        if self.run.is_done and self._wish != "give up":
            # The process's own last lines and pictures take a second, which nobody needs to wait for, except for an
            # engine that wants its room back.
            if self._accelerator.is_exclusive:
                await self._let_end()
            await self._finish(turn)
            await self._let_end()
        elif code is None and self._wish == "go on":
            await self._fail_without_result()
        elif self._wish == "make way":
            await self._note_the_stop()
        elif self._wish == "go on":
            await self._ended_by_itself(code)

    async def _remember(self) -> None:
        told = select(JobEventRow.type, JobEventRow.message, JobEventRow.data).where(JobEventRow.job_id == self._job.id)
        events = await self._workshop.transaction(lambda session: session.execute(told).all())
        self._narrator.remember(
            (message for kind, message, _ in events if kind == "message"),
            (metrics for kind, _, metrics in events if kind == "metrics"),
        )

    async def _is_free(self) -> bool:
        """Whether the run directory is ours now; not, when we aren't wanted any more before it is."""
        if await self._unless_wished(wait_until_free(self.run, self._workshop.settings.job_stop_grace_s)):
            return True
        if self._wish == "make way":
            await self._note_the_stop()
        return False

    async def _has_its_turn(self, turn: AcceleratorSlot) -> bool:
        """Whether the training has the accelerator now; not, when we aren't wanted any more before it has."""
        return await self._unless_wished(turn.acquire_for_training())

    async def _unless_wished(self, work: Coroutine[None, None, None]) -> bool:
        """Whether the work was done before something else was wished."""

        async def done() -> bool:
            await work
            return True

        async def wished() -> bool:
            return not await self._wished.wait()

        return await first_of(done(), wished())

    async def _say_what_it_waits_for(self, message: str) -> None:
        """Tells it in the job's events, unless the job was cancelled this moment."""

        def say(session: Session) -> None:
            if states.change(session, self._job.id, {"running"}, status="running"):
                add_event(session, self._job.id, message)

        await self._workshop.transaction(say)

    async def _note_the_stop(self) -> None:
        step = self.run.last_checkpoint
        await self._workshop.transaction(lambda session: states.stopped(session, self._job.id, step))

    async def _has_ended(self, turn: AcceleratorSlot) -> bool:
        if self.run.is_done:
            await self._finish(turn)
            return True
        last = await asyncio.to_thread(self.run.last_event)
        if last and _is_failure(last):
            await finish.fail_as_told(self._workshop, self._job, self.run, last)
            return True
        if last and last.type == "finished":
            await self._fail_without_result()
            return True
        return False

    async def _fail_without_result(self) -> None:
        """The process had put its result in place; training it again isn't what whoever took it away can want."""
        message = "The result was deleted before the job had ended. Create the job again if it was wanted."
        await finish.fail(self._workshop, self._job, "result_deleted", message)

    async def _finish(self, turn: AcceleratorSlot) -> None:
        """Sees to the end of the job; not to its last moment, when the job was cancelled or the server stops."""
        finishing = asyncio.create_task(self._finish_with_the_engine(turn))
        while not finishing.done():
            if self._leaving or self._wish == "give up":
                finishing.cancel()  # what is being written to the database is written to its end all the same
            await asyncio.wait({finishing}, timeout=_POLL_S)
        if not finishing.cancelled():
            finishing.result()

    async def _finish_with_the_engine(self, turn: AcceleratorSlot) -> None:
        if self.run.makes_adapter:
            await turn.switch_to_serving()
        await finish.finish(self._workshop, self._job, self.run)

    async def _train(self) -> int | None:
        """The exit code of the process; None when its result came before its end."""
        if self._wish != "go on":
            return None
        executable = self._workshop.command[0]
        grace_s = self._workshop.settings.job_stop_grace_s
        self._checkpoint_before = self.run.last_checkpoint
        division = self._accelerator.division
        self._process = process = await start_training(
            self._command, executable, self.run, self._job, grace_s, division
        )
        exited = asyncio.create_task(process.wait())
        try:
            while not exited.done() and not self._wished.is_set():
                if await self._ingest():
                    return None
                await self._pause_for(exited)
            await self._stop(process)
            code = await exited
        finally:
            exited.cancel()
        self._process = None
        await self._ingest()
        return code

    async def _stop(self, process: KeptProcess) -> None:
        """Ends the process if it should, and goes on to store what it tells until then."""
        if self._wish == "go on":
            return
        stopping = asyncio.create_task(process.kill() if self._wish == "give up" else process.stop())
        while not stopping.done():
            if self._wish == "give up":
                await process.kill()
            else:
                await self._ingest()
            await asyncio.wait({stopping}, timeout=_POLL_S)
        stopping.result()

    async def _pause_for(self, exited: asyncio.Task[int]) -> None:
        wished = asyncio.create_task(self._wished.wait())
        await asyncio.wait({exited, wished}, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED)
        wished.cancel()

    async def _let_end(self) -> None:
        """Gives the process time to close its books after its result is in use."""
        if self._process:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._workshop.settings.job_stop_grace_s):
                    await self._process.wait()
            await self._process.kill()
            self._process = None

    async def _ended_by_itself(self, code: int | None) -> None:
        last = await asyncio.to_thread(self.run.last_event)
        if last and _is_failure(last):
            await finish.fail_as_told(self._workshop, self._job, self.run, last)
            return
        how = f"was ended by signal {code - 128}" if code and code > 128 else f"ended with exit code {code}"
        progressed = self.run.last_checkpoint > self._checkpoint_before
        attempts = 1 if progressed else self._job.attempts + 1
        if attempts > MAX_ATTEMPTS:
            message = f"The training's process {how}, {attempts} times in a row without a new checkpoint. "
            remedy = "Memory may have run out: set a smaller batch_size or max_length, or free memory."
            await finish.fail(self._workshop, self._job, "training_process_died", message + remedy)
            return
        message = f"The training's process {how} and left no reason; the job goes on from its last checkpoint"
        await self._workshop.transaction(
            lambda session: states.requeue(session, self._job.id, message, level="warn", attempts=attempts)
        )

    async def _ingest(self) -> bool:
        """Stores what the process has told since the last time; whether its result is in place."""
        if self.run.events_bytes == self._offset:
            return False
        events, offset = await asyncio.to_thread(read_events, self.run.path, self._offset)
        if offset == self._offset:
            return False
        told: list[Told | _Published] = []
        for event in events:
            if event.type == "checkpoint" and event.step is not None:
                if published := await self._publish(event.step, int(event.created_at)):
                    told.append(published)
            elif said := self._narrator.tell(event):
                told.append(said)
        values = self._worked_out(events)
        stored = await self._workshop.transaction(lambda session: self._store(session, told, offset, values))
        self._offset = offset
        if any(isinstance(one, _Published) for one in told):
            await self._tidy(told, stored)
        self.has_settled |= self._process is not None and any(event.type == "step" for event in events)
        return any(event.type == "finished" for event in events)

    async def _publish(self, step: int, at: int) -> Told | _Published | None:
        metrics = self._narrator.metrics_at(step)
        if not (self.run.makes_adapter and self._workshop.settings.checkpoints_kept):
            return self._narrator.once(Told(f"Checkpoint created at step {step}", at, data={"step": step}))
        try:
            adapter = await checkpoints.publish(self._workshop, self._job, self.run, step)
        except AdapterError as error:
            reason = self.run.without_paths(str(error), self._job)
            unserved = f"The checkpoint of step {step} isn't served: {reason}"
            return self._narrator.once(Told(unserved, at, "warn", data={"step": step}))
        return _Published(step, adapter, metrics, at)

    def _store(self, session: Session, told: list[Told | _Published], offset: int, values: dict[str, Any]) -> bool:
        as_before = JobRow.events_offset == self._offset
        if not states.change(session, self._job.id, {"running"}, as_before, events_offset=offset, **values):
            return False
        for one in told:
            if isinstance(one, _Published):
                checkpoints.note(session, self._job.id, one.step, one.adapter, one.metrics, one.at)
            else:
                add_event(
                    session,
                    self._job.id,
                    one.message,
                    level=one.level,
                    metrics=one.metrics,
                    data=one.data,
                    created_at=one.created_at,
                )
        return True

    async def _tidy(self, told: list[Told | _Published], stored: bool) -> None:
        if stored:
            await checkpoints.let_go(self._workshop, self._job.id)
            return
        for one in told:  # the job ended meanwhile: what nobody was told of goes again
            if isinstance(one, _Published) and not await self._is_noted(one.step):
                await checkpoints.remove(self._workshop.registry, one.adapter.name)

    async def _is_noted(self, step: int) -> bool:
        return await self._workshop.transaction(lambda session: checkpoints.is_noted(session, self._job.id, step))

    def _worked_out(self, events: list[ProgressEvent]) -> dict[str, Any]:
        """Columns that change with what was told: when it will end, and what `auto` came to."""
        values: dict[str, Any] = {}
        finishes = [finish.estimated_finish(event) for event in events if event.type == "step"]
        if finishes:
            values["estimated_finish"] = finishes[-1]
            if self._turn:
                self._turn.expect([event for event in events if event.type == "step"][-1].remaining_s)
        if any(event.type == "finished" for event in events):
            values["estimated_finish"] = now_s() + round(finish.ENDING_S)
        if self._hyperparameters is None and (plan := self.run.plan):
            self._hyperparameters = values["hyperparameters"] = _resolved(self._job, plan)
        return values

    def _want(self, wish: Wish) -> None:
        self._wish = wish
        self._wished.set()

    async def _clean_up(self) -> None:
        """Nothing is left of a job that has ended but what is worth keeping; the runner does what can't be done now."""
        statement = select(JobRow.status).where(JobRow.id == self._job.id)
        status = await self._workshop.transaction(lambda session: session.scalar(statement))
        if status in states.ENDED:
            await clear(self._workshop, self._job.id, status)


class _Published:
    """A checkpoint that answers, and has yet to be written down."""

    def __init__(self, step: int, adapter: Adapter, metrics: dict[str, Any], at: int) -> None:
        self.step, self.adapter, self.metrics, self.at = step, adapter, metrics, at


def _is_failure(event: ProgressEvent) -> bool:
    """Whether the run ended for a reason of its own; one that was stopped goes on another time."""
    return event.type == "failed" and event.code != "interrupted"


def _resolved(job: JobRow, plan: dict[str, Any]) -> dict[str, Any]:
    """The hyperparameters, each `auto` among OpenAI's three replaced by what it came to."""
    found = {
        "n_epochs": plan["n_epochs"],
        "batch_size": plan["batch_size"] * plan["gradient_accumulation_steps"],
        "learning_rate_multiplier": float(f"{plan['learning_rate'] / job.base_learning_rate:.10g}"),
    }
    asked = job.hyperparameters
    return {**asked, **{name: value for name, value in found.items() if asked.get(name, "auto") == "auto"}}
