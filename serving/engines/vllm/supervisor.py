"""One supervised vLLM on a Unix socket that only we can open. Implements `serving.engines.engine.Engine`.

It refuses to know adapters' files and the HTTP that clients speak. One task, the supervisor, does all that happens to
the processes: it waits for their death and for orders, so that nothing is ever done to them by two at once.
"""

import asyncio
import contextlib
import importlib.util
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from serving.base_model import BaseModel
from serving.engines.engine import EngineLimits, EngineResponse, EngineState, OnProgress
from serving.engines.loan import Loan
from serving.engines.racing import first_of
from serving.engines.vllm.arguments import VLLMSettings, plan_launch
from serving.engines.vllm.client import PassedResponse, VLLMClient
from serving.engines.vllm.launch import Planner
from serving.engines.vllm.life import OnUp, VLLMLife
from serving.engines.vllm.orders import Orders
from serving.errors import EngineError, EngineStartError, EngineUnavailableError
from serving.machine.device import Device, inspect_device

logger = logging.getLogger(__name__)


class VLLMProcess:
    """The engine: one vLLM under its keeper, and the task that restarts it."""

    def __init__(
        self,
        base: BaseModel,
        settings: VLLMSettings,
        device: Device | None = None,
        *,
        planner: Planner = plan_launch,
    ) -> None:
        """device: by default what `inspect_device` finds. planner: what says how vLLM is started.

        Raises: EngineStartError for settings that can't be.
        """
        self._life = VLLMLife(base, settings, device or inspect_device(), planner)
        self._orders = Orders(lambda: EngineUnavailableError("The engine was stopped meanwhile.", 30.0))
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def base(self) -> BaseModel:
        """The base model."""
        return self._life.base

    @property
    def limits(self) -> EngineLimits:
        """What adapters and requests must fit into."""
        return self._life.limits

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life."""
        return self._life.state

    @property
    def generation(self) -> int:
        """How many times it came up."""
        return self._life.generation

    @property
    def session(self) -> int | None:
        """Session id of vLLM's processes, and pid of the first; None when none run."""
        return self._life.launch.session

    @property
    def restarts(self) -> int:
        """How many times it was started again, because it was dead or somebody asked for it."""
        return self._life.restarts

    @property
    def started_at(self) -> float | None:
        """When it came up last, in Unix seconds; None while it isn't up."""
        return self._life.started_at if self.state is EngineState.READY else None

    @property
    def start_seconds(self) -> float | None:
        """How long its last start took, from the process to the first answer; None before there was one."""
        return self._life.launch.start_s

    @property
    def in_flight(self) -> int:
        """Requests that it is answering."""
        return self._life.admission.in_flight

    @property
    def last_trouble(self) -> str | None:
        """Why it was down the last time, in its own last words; None if it never was. For whoever runs the server."""
        return self._life.trouble

    @property
    def lent(self) -> str | None:
        """That a training has the accelerator, and for how long; None when the engine has it."""
        return self._life.refusal().message if self._life.loan else None

    @property
    def on_up(self) -> OnUp | None:
        """Called when it has come up, before anybody else may ask it: whoever has adapters brings them back here."""
        return self._life.on_up

    @on_up.setter
    def on_up(self, on_up: OnUp | None) -> None:
        self._life.on_up = on_up

    async def start(self, on_progress: OnProgress | None = None) -> None:
        """Returns when vLLM takes requests. Raises: EngineStartError, and then nothing of it is left."""
        if self.state in (EngineState.STARTING, EngineState.READY):
            raise EngineStartError(f"The engine is {self.state} already. Stop it before starting it again.")
        if importlib.util.find_spec("vllm") is None:
            raise EngineStartError(
                "vLLM isn't installed. Install the cpu extra, or on a machine with a GPU the gpu extra."
            )
        await self._take_down()  # of an engine that was given up
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._take_down)
            self._life.expect(EngineState.STARTING)
            await self._life.launch.open()
            await self._until_not_lent(on_progress)
            self._supervisor = asyncio.create_task(self._supervise())
            await self._orders.give(lambda: self._first_start(on_progress))
            undo.pop_all()

    async def stop(self) -> None:
        """Returns when no process of the engine is left."""
        self._life.loan = None
        await self._take_down()

    async def restart(self, limits: EngineLimits | None = None) -> None:
        """Stops vLLM and starts it again; requests wait meanwhile. Those in flight are cut: let them end before.

        limits: what it is to be started with. Where it doesn't start with these, it gets its old ones back.
        Raises: EngineStartError when it couldn't be started so; EngineUnavailableError when it isn't ours to restart.
        """
        if self._supervisor is None or self._life.loan:
            refusal = self._life.refusal()
            raise EngineUnavailableError(refusal.message, refusal.retry_after_s)
        wanted = limits or self.limits
        self._life.settings_for(wanted)  # refuses what can't be before anything is stopped
        await self._orders.give(lambda: self._life.restart(wanted))

    async def lend(self, loan: Loan) -> None:
        """Returns when vLLM has let go of the accelerator; requests in flight had time to end before.

        New requests wait, or are told how long it takes. An engine that isn't up stays down until `take_back`.
        """
        self._life.loan = loan
        self._life.admission.close()
        if self._supervisor:
            with contextlib.suppress(EngineUnavailableError):  # it was stopped: that is letting go, too
                await self._orders.give(lambda: self._life.give_way(loan))

    async def take_back(self) -> None:
        """Returns when the engine takes requests again, if it did before.

        Raises: EngineStartError, and it is tried again as after any death; EngineUnavailableError when it was stopped.
        """
        was_lent, self._life.loan = self._life.loan is not None, None
        if was_lent and self._supervisor:
            if self.state is EngineState.STOPPED:
                self._life.expect(EngineState.STARTING)
            await self._orders.give(self._life.return_from_loan)

    async def is_healthy(self) -> bool:
        """Whether vLLM's own health check passes now."""
        return self.state is EngineState.READY and await self._life.client().is_healthy()

    async def load_adapter(self, name: str, path: Path) -> None:
        """See `Engine.load_adapter`. Waits as `request` does."""
        async with self._admitted() as client:
            await client.load_adapter(name, path)

    async def unload_adapter(self, name: str) -> None:
        """See `Engine.unload_adapter`. Waits as `request` does."""
        async with self._admitted() as client:
            await client.unload_adapter(name)

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[EngineResponse]:
        """See `Engine.request`. Waits up to `wait_s` for an engine that is coming back.

        When it or its answer raises, it is known whether the engine is dead: asking again waits for the next one.
        """
        async with (
            self._admitted() as client,
            client.request(method, path, body=body, headers=headers) as response,
        ):
            yield _Doubted(response, self._look_into_it)

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[VLLMClient]:
        async with self._life.admission.admitted(self._life.settings.wait_s):
            try:
                yield self._life.client()
            except EngineUnavailableError:
                await self._look_into_it()
                raise

    async def _look_into_it(self) -> None:
        """Returns when it is known whether the engine is dead, and the door closed if it is."""
        if self._life.watchdog:
            await first_of(self._life.admission.closed(), self._life.watchdog.doubt())

    async def _until_not_lent(self, on_progress: OnProgress | None) -> None:
        since = time.monotonic()
        while self._life.loan:
            if on_progress:
                on_progress("waiting for a fine-tuning job", time.monotonic() - since, 0.0)
            await asyncio.sleep(0.25)

    async def _first_start(self, on_progress: OnProgress | None) -> None:
        try:
            await self._life.bring_up(on_progress)
        except EngineStartError:
            self._life.expect(EngineState.STOPPED)  # whoever starts it is told, and it isn't tried again
            raise

    async def _supervise(self) -> None:
        while True:
            try:
                if self._orders:
                    await self._orders.carry_out()
                elif self._life.is_to_be_revived:
                    await self._revive()
                elif why := await first_of(self._death(), self._an_order()):
                    await self._life.die(why)
            except Exception:  # the outermost catcher of this task: without it nobody would supervise any more
                logger.exception("Supervising the engine met something unforeseen")
                await asyncio.sleep(1)

    async def _an_order(self) -> None:
        await self._orders.given()

    async def _death(self) -> str | None:
        """Why vLLM is dead, once it is."""
        if self.session is None or self._life.watchdog is None:
            await asyncio.get_running_loop().create_future()  # what isn't there can't die
            return None
        why: str = await first_of(self._life.launch.ended(), self._life.watchdog.until_stuck())
        return why

    async def _revive(self) -> None:
        """Starts vLLM again after a pause, unless there is an order meanwhile."""
        pause_s = self._life.pause_s
        self._life.expect(EngineState.DEAD, pause_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._orders.given()
                return
        with contextlib.suppress(EngineError):
            await self._life.revive()

    async def _take_down(self) -> None:
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
            self._supervisor = None
        self._orders.drop()
        await self._life.stop()


class _Doubted:
    """An answer, and what is done when it breaks off. Implements `serving.engines.engine.EngineResponse`."""

    def __init__(self, response: PassedResponse, look_into_it: Callable[[], Awaitable[None]]) -> None:
        self.status, self.headers = response.status, response.headers
        self._response, self._look_into_it = response, look_into_it
        self._parts = response.chunks()

    async def read(self) -> bytes:
        """The whole body. Raises: EngineUnavailableError if the engine goes away before its end."""
        try:
            return await self._response.read()
        except EngineUnavailableError:
            await self._look_into_it()
            raise

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, unparsed. Raises: EngineUnavailableError if the engine goes away before its end."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except EngineUnavailableError:
            await self._look_into_it()
            raise
