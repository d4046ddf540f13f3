"""The lifecycle of one vLLM: start, death, lease of the accelerator, return; its state, and the reason for it.

`supervisor` decides when each of these happens, one call at a time.

vLLM's sleep: its weights move into main memory, its cache is dropped, and the GPU is free for something else. The
endpoints exist in vLLM's development mode only, on our private socket; they were read in vLLM 0.32
(entrypoints/serve/dev/sleep), and on a CPU they fail. After a sleep, adapters have been silently wrong
(https://github.com/vllm-project/vllm/issues/53888): after waking it up, check its answers.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from serving.base_model import BaseModel
from serving.engines.accelerator_lease import AcceleratorLease
from serving.engines.admission import Admission, Refusal
from serving.engines.engine import AdapterHost, EngineLimits, EngineState, OnProgress
from serving.engines.vllm.arguments import VLLMSettings, limits_of, runs_on_cpu
from serving.engines.vllm.client import VLLMClient
from serving.engines.vllm.launch import Planner, VLLMLaunch
from serving.engines.vllm.watchdog import Watchdog
from serving.errors import EngineError, EngineMemoryError, EngineStartError, EngineUnavailableError, ServingError
from serving.machine.device import Device

_STABLE_S = 5.0
"""An engine that dies after being up for this long counts as dying for the first time: it can serve, and giving it up
after some bad minutes would leave its users with nothing. One that never gets so far is given up."""
_MAX_PAUSE_S = 60.0
_OVERDUE_S = 5.0
"""Retry-After where the engine should be up by now and isn't."""
_STAYS_DOWN_S = 60.0
_POLL_S = 0.25

OnUp = Callable[[AdapterHost], Awaitable[None]]
"""Called with the engine when it has come up, before it gets requests. An EngineError means that it can't be used."""

logger = logging.getLogger(__name__)


class VLLMLifecycle:
    """One vLLM, from its first start to its last end."""

    def __init__(self, base: BaseModel, settings: VLLMSettings, device: Device, planner: Planner) -> None:
        self.base, self.settings, self._device = base, settings, device
        self.limits = limits_of(base, settings, device)
        self.launch = VLLMLaunch(base, settings, device, planner)
        self.admission = Admission(self.refusal)
        self.state = EngineState.STOPPED
        self.lease: AcceleratorLease | None = None
        """Set from the request for the accelerator until it is reclaimed."""
        self.watchdog: Watchdog | None = None
        self.on_up: OnUp | None = None
        self.generation = 0
        self.restarts = 0
        self.started_at = 0.0
        """When it last came up, in Unix seconds."""
        self.trouble: str | None = None
        """Why it was down the last time."""
        self.is_given_up = False
        self._is_asleep = False
        self._deaths_in_a_row = 0
        self._waits_in_a_row = 0
        """Starts for which there wasn't enough memory, since the last death."""
        self._stable_at: float | None = None

    @property
    def needs_restart(self) -> bool:
        """Whether it is down unintentionally and should be started again."""
        return self.state is EngineState.DEAD and self.lease is None and not self.is_given_up

    @property
    def backoff_s(self) -> float:
        """How long to wait before the next start: not at all the first time, then longer each time."""
        failures = self._deaths_in_a_row + self._waits_in_a_row
        return min(2.0 ** (failures - 2), _MAX_PAUSE_S) if failures > 1 else 0.0

    def refusal(self) -> Refusal:
        """Return why it takes no requests now. The message is fit for clients."""
        if self.lease:
            return_s = self.launch.start_s or 0.0 if self.lease.mode == "stop" else 0.0
            return self.lease.refusal(return_s, self.settings.wait_s)
        if self.is_given_up:
            message = (
                f"The engine crashed {self._deaths_in_a_row} times in a row and stays down. The server's operator "
                "must check its log and restart it."
            )
            return Refusal(message, _STAYS_DOWN_S, worth_waiting=False)
        if self.state is EngineState.STOPPED:
            return Refusal("The engine is stopped. The server's operator must start it.", 30.0, worth_waiting=False)
        left_s = self.launch.expected_ready_at - time.monotonic()
        what = "starting" if self.generation == 0 else "being restarted"
        return Refusal(f"The engine is {what}. Try again when it is ready.", left_s if left_s > 1 else _OVERDUE_S)

    def client(self) -> VLLMClient:
        """Return the client of vLLM. Raises: EngineUnavailableError when it was stopped."""
        if self.launch.client is None:
            raise EngineUnavailableError("The engine was stopped. The server's operator must start it.", 30.0)
        return self.launch.client

    def set_state(self, state: EngineState, pause_s: float = 0.0) -> None:
        """Set the state; the engine is expected to be up after `pause_s` plus the duration of a start."""
        self.state = state
        if self.launch.start_s:
            self.launch.expected_ready_at = time.monotonic() + pause_s + self.launch.start_s

    async def start(self, on_progress: OnProgress | None = None) -> None:
        """Start vLLM, ending one that runs, and admit requests. Raises: EngineStartError, and then it is dead."""
        self.set_state(EngineState.STARTING)
        try:
            await self.launch.end()
            await self.launch.start(self.settings_for(self.limits), on_progress)
            await self._finish_start()
        except EngineError as error:
            await self.mark_dead(str(error), may_pass=isinstance(error, EngineMemoryError))
            if isinstance(error, EngineStartError):
                raise
            raise EngineStartError(f"The engine started, but can't be used: {error}") from error
        except Exception as error:  # e.g. a full disk: only a dead engine is tried again
            why = f"The engine couldn't be started: {_describe_error(error)}"
            await self.mark_dead(why)
            raise EngineStartError(why) from error

    async def mark_dead(self, why: str, *, may_pass: bool = False) -> None:
        """Mark it dead, and kill what is left of it.

        may_pass: the reason may pass by itself, so it is tried again for as long as it takes.
        """
        self.state, self.trouble, self._is_asleep = EngineState.DEAD, why, False
        self.admission.close()
        if self._stable_at is not None and time.monotonic() > self._stable_at:
            self._deaths_in_a_row = self._waits_in_a_row = 0
        self._stable_at = None
        if may_pass:
            self._waits_in_a_row += 1
        else:
            self._deaths_in_a_row, self._waits_in_a_row = self._deaths_in_a_row + 1, 0
        logger.error("The engine is dead: %s", why)
        await self.launch.kill()
        if self._deaths_in_a_row > self.settings.max_restarts:
            self.is_given_up = True
            logger.error("The engine crashed %d times in a row and stays down.", self._deaths_in_a_row)

    async def start_again(self) -> None:
        """Start it again. Raises: EngineStartError, and then it is dead."""
        await self.start()
        self.restarts += 1

    async def restart(self, limits: EngineLimits) -> None:
        """Restart it with these limits; with the old ones if that fails. Raises: EngineStartError."""
        before = self.limits
        self.admission.close()
        self.reset_deaths()
        self.limits = limits
        try:
            await self.start_again()
        except EngineStartError as error:
            if limits == before:
                raise
            self.limits = before
            await self.start_again()
            raise EngineStartError(
                f"The engine is running with its previous limits; with the new ones it failed: {error}"
            ) from error

    async def release_accelerator(self, lease: AcceleratorLease) -> None:
        """Release the accelerator, after requests in flight had time to end."""
        if self.launch.session is None:
            return
        deadline = time.monotonic() + self.settings.drain_s
        while self.lease is lease and (left_s := deadline - time.monotonic()) > 0:
            if await self.admission.drain(min(left_s, _POLL_S)):
                break
        if self.lease is not lease:  # the lease was cancelled
            return
        self._is_asleep = lease.mode == "sleep" and await fall_asleep(self.client())
        if not self._is_asleep:
            await self.launch.end()
        self.state = EngineState.STOPPED

    async def resume(self) -> None:
        """Continue as before the lease. Raises: EngineStartError, and then it is dead."""
        if self.lease or self.is_given_up:  # leased again meanwhile
            return
        was_asleep, self._is_asleep = self._is_asleep, False
        if self.state is EngineState.READY:
            self.admission.open()
        elif not was_asleep:
            await self.start()
        else:
            await self._wake_up()

    async def stop(self) -> None:
        """Stop it: no process is left, and the directory is unlocked."""
        self.state, self._is_asleep = EngineState.STOPPED, False
        self.admission.close()
        self.reset_deaths()
        await self.launch.close()

    def reset_deaths(self) -> None:
        """Reset the count of deaths."""
        self.is_given_up, self._deaths_in_a_row, self._waits_in_a_row = False, 0, 0

    def settings_for(self, limits: EngineLimits) -> VLLMSettings:
        """Return the settings with these limits on adapters. Raises: EngineStartError for those that vLLM rejects."""
        settings = replace(
            self.settings,
            max_lora_rank=limits.max_lora_rank,
            max_loras=limits.max_loras,
            max_cpu_loras=limits.max_cpu_loras,
        )
        limits_of(self.base, settings, self._device)
        return settings

    async def _wake_up(self) -> None:
        """Wake it up; if that fails, or its answers are wrong afterwards, start it afresh."""
        try:
            await wake_up(self.client())
            await self._finish_start(after_sleep=True)
        except Exception as error:  # noqa: BLE001 (whatever it is: a fresh start fixes it, or says why it can't)
            self.trouble = f"The engine didn't wake up correctly and was restarted: {_describe_error(error)}"
            logger.error(self.trouble)
            self.set_state(EngineState.DEAD)  # so that it is tried again if not even the kill succeeds
            await self.launch.kill()
            await self.start_again()

    async def _finish_start(self, *, after_sleep: bool = False) -> None:
        """Admit requests, once the adapters have been restored. Raises: EngineError."""
        self.generation += 1
        if not after_sleep and (length := await self.client().read_max_model_len()):
            self.limits = replace(self.limits, max_model_len=length)
        if self.on_up:
            await self._restore_adapters(self.on_up, after_sleep)
        self.watchdog = Watchdog(
            self.client(),
            self.launch.socket,
            self.launch.session or 0,
            self.base.name,
            lambda: self.admission.in_flight,
            stall_timeout_s=self.settings.stall_timeout_s,
            on_cpu=runs_on_cpu(self.settings, self._device),
        )
        self._stable_at, self.started_at = time.monotonic() + _STABLE_S, time.time()
        self.state = EngineState.READY
        if self.lease is None:
            self.admission.open()

    async def _restore_adapters(self, on_up: OnUp, after_sleep: bool) -> None:
        try:
            async with asyncio.timeout(self.settings.start_timeout_s):
                await on_up(_StartingEngine(self, after_sleep))
        except TimeoutError as error:
            raise EngineStartError(
                f"Its adapters weren't loaded again after {self.settings.start_timeout_s:.0f} s. Raise "
                "engine_start_timeout_s."
            ) from error


def _describe_error(error: Exception) -> str:
    """Return the message; with the type if it wasn't written for users, such as "KeyError: 'data'"."""
    return str(error) if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"


class _StartingEngine:
    """The engine while its adapters are restored, before it gets requests. Implements `AdapterHost`."""

    def __init__(self, lifecycle: VLLMLifecycle, after_sleep: bool) -> None:
        client = lifecycle.client()
        self.after_sleep = after_sleep
        """Whether it woke from a sleep, so that a wrong answer is the engine's fault and a fresh start fixes it."""
        self.base, self.limits, self.generation = lifecycle.base, lifecycle.limits, lifecycle.generation
        self.load_adapter, self.unload_adapter = client.load_adapter, client.unload_adapter
        self.request = client.request


_TIMEOUT_S = 300.0
"""For moving all weights off the GPU or back; some GB/s."""

logger = logging.getLogger(__name__)


async def fall_asleep(client: VLLMClient) -> bool:
    """Return whether vLLM sleeps now; if not, stop it to free the accelerator. Requests in flight are aborted."""
    try:
        await _post(client, "/sleep?level=1")
    except (EngineStartError, EngineUnavailableError) as error:
        logger.error("The engine can't go to sleep and is stopped instead: %s", error)
        return False
    return True


async def wake_up(client: VLLMClient) -> None:
    """Return once the weights are back. Raises: EngineStartError, EngineUnavailableError."""
    await _post(client, "/wake_up")


async def _post(client: VLLMClient, path: str) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT_S), client.request("POST", path) as response:
            body = await response.read()
            if response.status != 200:
                raise EngineStartError(
                    f"vLLM responded with {response.status} to {path}: {body.decode(errors='replace')}"
                )
    except TimeoutError as error:
        raise EngineStartError(f"vLLM took more than {_TIMEOUT_S:.0f} s for {path}.") from error
