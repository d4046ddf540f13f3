"""Sharing of the accelerator between engines and trainings: one policy for the machine.

`split`     both run, each with its share of memory: best for a CPU with little work.
`sleep`     the engine sleeps while a job trains (GPU): its weights wait in the machine's memory.
`stop`      the engine is stopped while a job trains, and started again afterwards.
`separate`  both run, on devices of their own: GPUs, or cores of a CPU.

How an engine sleeps or stops is the engine's business. Nothing is persisted: when the server dies, its engines die with
it, and the next start begins afresh.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Literal, Protocol

from serving.engines.accelerator_lease import AcceleratorLease
from serving.errors import EngineError
from serving.machine.division import Division, Policy

OnWait = Callable[[str], Awaitable[None]]
"""Called with a sentence that says what a job waits for."""

logger = logging.getLogger(__name__)


class LendableEngine(Protocol):
    """An engine on this machine that can release the accelerator."""

    async def lend_accelerator(self, lease: AcceleratorLease) -> None:
        """Return once the engine has released the accelerator."""

    async def reclaim_accelerator(self) -> None:
        """Return once the engine runs as before. Raises: EngineError."""


class Accelerator:
    """Schedules engines and trainings. Jobs train side by side; a job whose model waits to be loaded goes first."""

    def __init__(
        self, policy: Policy = "split", engines: Sequence[LendableEngine] = (), division: Division | None = None
    ) -> None:
        """engines: those that release the accelerator. division: which devices belong to whom; by default shared."""
        self._mode: Literal["sleep", "stop"] | None = policy if policy in ("sleep", "stop") else None
        self._engines = engines
        self.division = division or Division()
        self._training: list[AcceleratorSlot] = []
        self._serving = 0
        self._is_lent = self._is_closed = False
        self._changing = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        """Work that must finish even if nobody awaits it; asyncio itself keeps only weak references to tasks."""

    @property
    def is_exclusive(self) -> bool:
        """Whether engines and trainings never run at the same time."""
        return self._mode is not None

    @asynccontextmanager
    async def slot(self, on_wait: OnWait) -> AsyncIterator["AcceleratorSlot"]:
        """One job's use of the accelerator, from its first step until its model is loaded or the job has ended."""
        slot = AcceleratorSlot(self, on_wait)
        try:
            yield slot
        finally:
            await slot.release()

    def open(self) -> None:
        """Let engines come back when trainings end; this is the initial state."""
        self._is_closed = False

    def close(self) -> None:
        """Keep engines down once they have released the accelerator: the server is stopping."""
        self._is_closed = True

    async def _begin_training(self, slot: "AcceleratorSlot", on_wait: OnWait) -> None:
        if self._serving:
            await on_wait("The job is waiting for another job's model to load")
        async with self._changed:
            await self._changed.wait_for(lambda: not self._serving)
            self._training.append(slot)
        async with self._changing:
            if self._is_lent:
                return
            await on_wait("The job is waiting for the engine to finish its requests and free memory")
            self._is_lent = True
            lease = AcceleratorLease(self._mode or "stop", self._remaining_s)
            await asyncio.gather(*(engine.lend_accelerator(lease) for engine in self._engines))

    async def _end_training(self, slot: "AcceleratorSlot") -> None:
        if slot in self._training:
            self._training.remove(slot)
        await self._run_to_completion(self._return_to_engines())

    async def _return_to_engines(self) -> None:
        """Restart the engines, unless a job is training."""
        async with self._changing:
            if self._is_lent and not self._training and not self._is_closed:
                await asyncio.gather(*(_reclaim(engine) for engine in self._engines))
                self._is_lent = False
        await self._notify()

    async def _begin_serving(self, on_wait: OnWait) -> None:
        if self._training:
            await on_wait("The model will be loaded when the other running jobs release the accelerator")
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_lent)

    async def _end_serving(self) -> None:
        self._serving -= 1
        await self._run_to_completion(self._notify())

    async def _run_to_completion(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` to completion, even if the caller is cancelled (as a job may be), since others depend on it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _remaining_s(self) -> float | None:
        """Seconds until all running trainings end; None if any of them has no estimate yet."""
        expected = [slot.remaining_s for slot in self._training]
        return None if None in expected else max((seconds for seconds in expected if seconds is not None), default=0.0)


class AcceleratorSlot:
    """One job's hold on the accelerator: first none, then a training's share, then exclusive use by the engine."""

    def __init__(self, accelerator: Accelerator, on_wait: OnWait) -> None:
        self._accelerator, self._on_wait = accelerator, on_wait
        self._is_training = self._is_serving = False
        self._ends_at: float | None = None

    @property
    def remaining_s(self) -> float | None:
        """Seconds that the training is expected to take from now on; None if unknown."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def expect(self, remaining_s: float | None) -> None:
        """Set how long the training is expected to take from now on, in seconds."""
        if remaining_s is not None:
            self._ends_at = time.monotonic() + remaining_s

    async def acquire_for_training(self) -> None:
        """Wait until the accelerator is free for the training. Call it once, first."""
        if self._accelerator.is_exclusive:
            self._is_training = True
            try:
                await self._accelerator._begin_training(self, self._on_wait)
            except BaseException:
                await self.release()
                raise

    async def switch_to_serving(self) -> None:
        """Release the training's share and wait until the engine is back; no training starts until `release`."""
        if self._accelerator.is_exclusive and not self._is_serving:
            self._is_serving = True
            self._accelerator._serving += 1
            await self._release_training()
            await self._accelerator._begin_serving(self._on_wait)

    async def release(self) -> None:
        """Release whatever is held."""
        await self._release_training()
        if self._is_serving:
            self._is_serving = False
            await self._accelerator._end_serving()

    async def _release_training(self) -> None:
        if self._is_training:
            self._is_training = False
            await self._accelerator._end_training(self)


async def _reclaim(engine: LendableEngine) -> None:
    try:
        await engine.reclaim_accelerator()
    except EngineError as error:  # the engine's supervisor tries again
        logger.error("The engine isn't available yet after a training: %s", error)
    except Exception:  # the lease is over either way, and the other engines come back
        logger.exception("Unexpected error while restoring the engine after a training")
