"""Who has the accelerator: the engines, trainings, or both. One policy for the machine.

`split`     both run, each with its share of memory: what a processor does best with little work.
`sleep`     the engine sleeps while a job trains (GPU): its weights wait in the machine's memory.
`stop`      the engine is stopped while a job trains, and started afterwards.
`separate`  both run, on devices of their own: GPUs, or cores of a processor.

It refuses to know how an engine sleeps or stops, and what a training is. It writes nothing down: when the server dies,
its engines die with it, and the next start begins afresh.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Literal, Protocol

from serving.engines.loan import Loan
from serving.errors import EngineError
from serving.machine.division import Division

Policy = Literal["split", "sleep", "stop", "separate"]
OnWait = Callable[[str], Awaitable[None]]
"""Called with a sentence that says what a job waits for."""

logger = logging.getLogger(__name__)


class Lender(Protocol):
    """An engine on this machine that can make room."""

    async def lend(self, loan: Loan) -> None:
        """Returns when it has let go of the accelerator."""

    async def take_back(self) -> None:
        """Returns when it goes on as before. Raises: EngineError."""


class Accelerator:
    """The turns of engines and trainings. Jobs train side by side; one whose model is to be loaded goes first."""

    def __init__(
        self, policy: Policy = "split", engines: Sequence[Lender] = (), division: Division | None = None
    ) -> None:
        """engines: those that make room. division: which devices are whose; by default all are everybody's."""
        self._how: Literal["sleep", "stop"] | None = policy if policy in ("sleep", "stop") else None
        self._engines = engines
        self.division = division or Division()
        self._training: list[Turn] = []
        self._serving = 0
        self._is_lent = self._is_closed = False
        self._changing = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._at_work: set[asyncio.Task[None]] = set()
        """What goes on though nobody may wait for it any more; asyncio keeps no task that nobody else does."""

    @property
    def takes_turns(self) -> bool:
        """Whether engine and trainings never run at once."""
        return self._how is not None

    @asynccontextmanager
    async def turn(self, on_wait: OnWait) -> AsyncIterator["Turn"]:
        """One job's use of the accelerator, from its first step until its model is loaded or it is over."""
        turn = Turn(self, on_wait)
        try:
            yield turn
        finally:
            await turn.end()

    def open(self) -> None:
        """From now on the engines come back when trainings end; so it is at first."""
        self._is_closed = False

    def close(self) -> None:
        """From now on engines that gave way stay down: the server stops."""
        self._is_closed = True

    async def _begin_training(self, turn: "Turn", on_wait: OnWait) -> None:
        if self._serving:
            await on_wait("The job waits until the model of another job is loaded")
        async with self._changed:
            await self._changed.wait_for(lambda: not self._serving)
            self._training.append(turn)
        async with self._changing:
            if self._is_lent:
                return
            await on_wait("The job waits for the engine to end its requests and make room")
            self._is_lent = True
            loan = Loan(self._how or "stop", self._remaining_s)
            await asyncio.gather(*(engine.lend(loan) for engine in self._engines))

    async def _end_training(self, turn: "Turn") -> None:
        if turn in self._training:
            self._training.remove(turn)
        await self._to_the_end(self._return())

    async def _return(self) -> None:
        """Brings the engines back, unless somebody trains."""
        async with self._changing:
            if self._is_lent and not self._training and not self._is_closed:
                await asyncio.gather(*(_bring_back(engine) for engine in self._engines))
                self._is_lent = False
        await self._tell()

    async def _begin_serving(self, on_wait: OnWait) -> None:
        if self._training:
            await on_wait("The model will be loaded when the other running jobs give the accelerator back")
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_lent)

    async def _end_serving(self) -> None:
        self._serving -= 1
        await self._to_the_end(self._tell())

    async def _to_the_end(self, work: Coroutine[None, None, None]) -> None:
        """Returns when it is done; it is done even when the caller is cancelled, as a job is, since others need it."""
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        await asyncio.shield(task)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _remaining_s(self) -> float | None:
        """How long the running trainings take; None while one of them doesn't know."""
        expected = [turn.remaining_s for turn in self._training]
        return None if None in expected else max((one for one in expected if one is not None), default=0.0)


class Turn:
    """What one job has of the accelerator: nothing, then a training's share, then the engine's attention."""

    def __init__(self, accelerator: Accelerator, on_wait: OnWait) -> None:
        self._accelerator, self._on_wait = accelerator, on_wait
        self._is_training = self._is_serving = False
        self._ends_at: float | None = None

    @property
    def remaining_s(self) -> float | None:
        """Seconds that the training is expected to take from now on; None while nobody knows."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def expect(self, remaining_s: float | None) -> None:
        """Says how long the training is going to take from now on, in seconds."""
        if remaining_s is not None:
            self._ends_at = time.monotonic() + remaining_s

    async def train(self) -> None:
        """Returns when the accelerator is free for the training. To be called once, first."""
        if self._accelerator.takes_turns:
            self._is_training = True
            try:
                await self._accelerator._begin_training(self, self._on_wait)
            except BaseException:
                await self.end()
                raise

    async def serve(self) -> None:
        """Gives the accelerator back, and returns when the engine has it; until `end` no training takes it."""
        if self._accelerator.takes_turns and not self._is_serving:
            self._is_serving = True
            self._accelerator._serving += 1
            await self._give_back()
            await self._accelerator._begin_serving(self._on_wait)

    async def end(self) -> None:
        """Gives back whatever it has."""
        await self._give_back()
        if self._is_serving:
            self._is_serving = False
            await self._accelerator._end_serving()

    async def _give_back(self) -> None:
        if self._is_training:
            self._is_training = False
            await self._accelerator._end_training(self)


async def _bring_back(engine: Lender) -> None:
    try:
        await engine.take_back()
    except EngineError as error:  # whoever watches over it tries again
        logger.error("The engine isn't back yet after a training: %s", error)
    except Exception:  # it isn't lent any more either way, and the other engines come back
        logger.exception("Bringing the engine back after a training met something unforeseen")
