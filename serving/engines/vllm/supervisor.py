"""One supervised vLLM on a private Unix socket. Implements `serving.engines.engine.Engine`.

One task, the supervisor, does everything to the processes: it waits for their death and for commands, so that no two
operations ever overlap.
"""

import asyncio
import contextlib
import importlib.util
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from serving.base_model import BaseModel
from serving.engines.accelerator_lease import AcceleratorLease
from serving.engines.engine import EngineLimits, EngineResponse, EngineState, OnProgress
from serving.engines.racing import first_of
from serving.engines.vllm.arguments import VLLMSettings, plan_launch
from serving.engines.vllm.client import VLLMClient
from serving.engines.vllm.command_queue import CommandQueue
from serving.engines.vllm.launch import Planner
from serving.engines.vllm.lifecycle import OnUp, VLLMLifecycle
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
        """device: by default the result of `inspect_device`. planner: returns how to start vLLM.

        Raises: EngineStartError for invalid settings.
        """
        self._lifecycle = VLLMLifecycle(base, settings, device or inspect_device(), planner)
        self._commands = CommandQueue(lambda: EngineUnavailableError("The engine was stopped in the meantime.", 30.0))
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def base(self) -> BaseModel:
        """The base model."""
        return self._lifecycle.base

    @property
    def limits(self) -> EngineLimits:
        """What adapters and requests must fit into."""
        return self._lifecycle.limits

    @property
    def state(self) -> EngineState:
        """The engine's state."""
        return self._lifecycle.state

    @property
    def generation(self) -> int:
        """How often it has come up."""
        return self._lifecycle.generation

    @property
    def session(self) -> int | None:
        """Session id of vLLM's processes, which is the pid of the first; None when none run."""
        return self._lifecycle.launch.session

    @property
    def restarts(self) -> int:
        """How often it was started again, after a death or on request."""
        return self._lifecycle.restarts

    @property
    def started_at(self) -> float | None:
        """When it last came up, in Unix seconds; None while it isn't up."""
        return self._lifecycle.started_at if self.state is EngineState.READY else None

    @property
    def start_seconds(self) -> float | None:
        """How long its last start took, from the process to the first answer; None before the first."""
        return self._lifecycle.launch.start_s

    @property
    def in_flight(self) -> int:
        """Requests that it is answering."""
        return self._lifecycle.admission.in_flight

    @property
    def last_trouble(self) -> str | None:
        """Why it was down the last time, in its own words; None if it never was. For the operator."""
        return self._lifecycle.trouble

    @property
    def lease_message(self) -> str | None:
        """That a training has the accelerator, and for how long; None when the engine has it."""
        return self._lifecycle.refusal().message if self._lifecycle.lease else None

    @property
    def on_up(self) -> OnUp | None:
        """Called when it has come up, before it gets requests: the place to restore its adapters."""
        return self._lifecycle.on_up

    @on_up.setter
    def on_up(self, on_up: OnUp | None) -> None:
        self._lifecycle.on_up = on_up

    async def start(self, on_progress: OnProgress | None = None) -> None:
        """Return once vLLM takes requests. Raises: EngineStartError, and then nothing of it is left."""
        if self.state in (EngineState.STARTING, EngineState.READY):
            raise EngineStartError(f"The engine is {self.state} already. Stop it before starting it again.")
        if importlib.util.find_spec("vllm") is None:
            raise EngineStartError(
                "vLLM isn't installed. Install the cpu extra, or on a machine with a GPU the gpu extra."
            )
        await self._shut_down()  # of an engine that was given up
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._shut_down)
            self._lifecycle.set_state(EngineState.STARTING)
            await self._lifecycle.launch.open()
            await self._wait_until_reclaimed(on_progress)
            self._supervisor = asyncio.create_task(self._supervise())
            await self._commands.submit(lambda: self._start_first_time(on_progress))
            undo.pop_all()

    async def stop(self) -> None:
        """Return once no process of the engine is left."""
        self._lifecycle.lease = None
        await self._shut_down()

    async def restart(self, limits: EngineLimits | None = None) -> None:
        """Restart vLLM; requests wait meanwhile. Those in flight are cut: drain them first.

        limits: those to start with. If it doesn't start with these, it gets its old ones back.
        Raises: EngineStartError when it couldn't be started so; EngineUnavailableError when it can't be restarted now.
        """
        if self._supervisor is None or self._lifecycle.lease:
            refusal = self._lifecycle.refusal()
            raise EngineUnavailableError(refusal.message, refusal.retry_after_s)
        wanted = limits or self.limits
        self._lifecycle.settings_for(wanted)  # rejects invalid limits before anything is stopped
        await self._commands.submit(lambda: self._lifecycle.restart(wanted))

    async def lend_accelerator(self, lease: AcceleratorLease) -> None:
        """Return once vLLM has released the accelerator; requests in flight had time to end before.

        New requests wait, or get an error that says how long it takes. An engine that isn't up stays down until
        `reclaim_accelerator`.
        """
        self._lifecycle.lease = lease
        self._lifecycle.admission.close()
        if self._supervisor:
            with contextlib.suppress(EngineUnavailableError):  # it was stopped, which also releases the accelerator
                await self._commands.submit(lambda: self._lifecycle.release_accelerator(lease))

    async def reclaim_accelerator(self) -> None:
        """Return once the engine takes requests again, if it did before.

        Raises: EngineStartError, and it is retried as after any death; EngineUnavailableError when it was stopped.
        """
        was_lent, self._lifecycle.lease = self._lifecycle.lease is not None, None
        if was_lent and self._supervisor:
            if self.state is EngineState.STOPPED:
                self._lifecycle.set_state(EngineState.STARTING)
            await self._commands.submit(self._lifecycle.resume)

    async def is_healthy(self) -> bool:
        """Return whether vLLM's own health check passes now."""
        return self.state is EngineState.READY and await self._lifecycle.client().is_healthy()

    async def load_adapter(self, name: str, path: Path) -> None:
        """See `Engine.load_adapter`. Waits like `request`."""
        async with self._admit() as client:
            await client.load_adapter(name, path)

    async def unload_adapter(self, name: str) -> None:
        """See `Engine.unload_adapter`. Waits like `request`."""
        async with self._admit() as client:
            await client.unload_adapter(name)

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[EngineResponse]:
        """See `Engine.request`. Waits up to `wait_s` for an engine that is coming back.

        When it or its response raises, it is known whether the engine is dead: a retry waits for the next one.
        """
        async with (
            self._admit() as client,
            client.request(method, path, body=body, headers=headers, on_break=self._check_engine) as response,
        ):
            yield response

    @asynccontextmanager
    async def _admit(self) -> AsyncIterator[VLLMClient]:
        async with self._lifecycle.admission.admit(self._lifecycle.settings.wait_s):
            try:
                yield self._lifecycle.client()
            except EngineUnavailableError:
                await self._check_engine()
                raise

    async def _check_engine(self) -> None:
        """Return once it is known whether the engine is dead; if it is, requests are no longer admitted."""
        if self._lifecycle.watchdog:
            await first_of(self._lifecycle.admission.wait_until_closed(), self._lifecycle.watchdog.check_now())

    async def _wait_until_reclaimed(self, on_progress: OnProgress | None) -> None:
        since = time.monotonic()
        while self._lifecycle.lease:
            if on_progress:
                on_progress("waiting for a fine-tuning job", time.monotonic() - since, 0.0)
            await asyncio.sleep(0.25)

    async def _start_first_time(self, on_progress: OnProgress | None) -> None:
        try:
            await self._lifecycle.start(on_progress)
        except EngineStartError:
            self._lifecycle.set_state(EngineState.STOPPED)  # the caller gets the error, and there is no retry
            raise

    async def _supervise(self) -> None:
        while True:
            try:
                if self._commands:
                    await self._commands.run_next()
                elif self._lifecycle.needs_restart:
                    await self._restart_after_death()
                elif why := await first_of(self._wait_for_death(), self._wait_for_command()):
                    await self._lifecycle.mark_dead(why)
            except Exception:  # the outermost catcher of this task: otherwise supervision would end
                logger.exception("Unexpected error while supervising the engine")
                await asyncio.sleep(1)

    async def _wait_for_command(self) -> None:
        await self._commands.wait()

    async def _wait_for_death(self) -> str | None:
        """Wait until vLLM is dead, and return why."""
        if self.session is None or self._lifecycle.watchdog is None:
            await asyncio.get_running_loop().create_future()  # nothing runs, so nothing can die
            return None
        why: str = await first_of(self._lifecycle.launch.wait_for_end(), self._lifecycle.watchdog.wait_until_stuck())
        return why

    async def _restart_after_death(self) -> None:
        """Start vLLM again after a pause, unless a command comes meanwhile."""
        pause_s = self._lifecycle.backoff_s
        self._lifecycle.set_state(EngineState.DEAD, pause_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._commands.wait()
                return
        with contextlib.suppress(EngineError):
            await self._lifecycle.start_again()

    async def _shut_down(self) -> None:
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
            self._supervisor = None
        self._commands.fail_all()
        await self._lifecycle.stop()
