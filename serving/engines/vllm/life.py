"""The life of one vLLM: brought up, dead, lent, brought back; in which state it is, and why.

It refuses to know when any of that is to happen: one caller at a time says so, `supervisor`.

vLLM's sleep: its weights go into the machine's memory, its cache is dropped, and a GPU is free for something else. The
endpoints exist in vLLM's development mode alone, on our private socket; they were read in vLLM 0.32
(entrypoints/serve/dev/sleep), and a processor refuses them. After a sleep, adapters have been wrong without a word
(https://github.com/vllm-project/vllm/issues/53888): whoever wakes it must check what it says.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from serving.base_model import BaseModel
from serving.engines.admission import Admission, Refusal
from serving.engines.engine import AdapterPlace, EngineLimits, EngineState, OnProgress
from serving.engines.loan import Loan
from serving.engines.vllm.arguments import VLLMSettings, limits_of, runs_on_cpu
from serving.engines.vllm.client import VLLMClient
from serving.engines.vllm.launch import Planner, VLLMLaunch
from serving.engines.vllm.watchdog import Watchdog
from serving.errors import EngineError, EngineStartError, EngineUnavailableError, ServingError
from serving.machine.device import Device

_STABLE_S = 5.0
"""Up for this long, an engine that dies again counts as dying for the first time: it can serve, and giving it up after
some bad minutes would leave its users with nothing. What never gets so far is given up."""
_MAX_PAUSE_S = 60.0
_OVERDUE_S = 5.0
"""When to ask again, where the engine should be up by now and isn't."""
_STAYS_DOWN_S = 60.0
_POLL_S = 0.25

OnUp = Callable[[AdapterPlace], Awaitable[None]]
"""Called with the engine when it has come up, before anybody else may ask it. An EngineError says it is no good."""

logger = logging.getLogger(__name__)


class VLLMLife:
    """One vLLM, from first start to last end."""

    def __init__(self, base: BaseModel, settings: VLLMSettings, device: Device, planner: Planner) -> None:
        self.base, self.settings, self._device = base, settings, device
        self.limits = limits_of(base, settings, device)
        self.launch = VLLMLaunch(base, settings, device, planner)
        self.admission = Admission(self.refusal)
        self.state = EngineState.STOPPED
        self.loan: Loan | None = None
        """Set from the moment that the accelerator is asked for until it is taken back."""
        self.watchdog: Watchdog | None = None
        self.on_up: OnUp | None = None
        self.generation = 0
        self.restarts = 0
        self.started_at = 0.0
        """When it came up last, in Unix seconds."""
        self.trouble: str | None = None
        """Why it was down the last time."""
        self.is_given_up = False
        self._is_asleep = False
        self._deaths_in_a_row = 0
        self._stable_at: float | None = None

    @property
    def is_to_be_revived(self) -> bool:
        """Whether it is down, and nobody wants it so."""
        return self.state is EngineState.DEAD and self.loan is None and not self.is_given_up

    @property
    def pause_s(self) -> float:
        """How long to wait before it is started again: not at all the first time, then longer each time."""
        return min(2.0 ** (self._deaths_in_a_row - 2), _MAX_PAUSE_S) if self._deaths_in_a_row > 1 else 0.0

    def refusal(self) -> Refusal:
        """Why it takes no requests now. Says nothing that isn't for clients' eyes."""
        if self.loan:
            return_s = self.launch.start_s or 0.0 if self.loan.how == "stop" else 0.0
            return self.loan.refusal(return_s, self.settings.wait_s)
        if self.is_given_up:
            message = (
                f"The engine ended {self._deaths_in_a_row} times in a row and stays down. "
                "Whoever runs the server finds why in its log, and restarts it."
            )
            return Refusal(message, _STAYS_DOWN_S, may_pass=False)
        if self.state is EngineState.STOPPED:
            return Refusal("The engine is stopped. Whoever runs the server must start it.", 30.0, may_pass=False)
        left_s = self.launch.expected_ready_at - time.monotonic()
        what = "starting" if self.generation == 0 else "being restarted"
        return Refusal(f"The engine is {what}. Try again when it is up.", left_s if left_s > 1 else _OVERDUE_S)

    def client(self) -> VLLMClient:
        """The way to vLLM. Raises: EngineUnavailableError when it was stopped."""
        if self.launch.client is None:
            raise EngineUnavailableError("The engine was stopped. Whoever runs the server must start it.", 30.0)
        return self.launch.client

    def expect(self, state: EngineState, pause_s: float = 0.0) -> None:
        """It is in this state now, and will be up after `pause_s` and a start."""
        self.state = state
        if self.launch.start_s:
            self.launch.expected_ready_at = time.monotonic() + pause_s + self.launch.start_s

    async def bring_up(self, on_progress: OnProgress | None = None) -> None:
        """Starts vLLM, ending one that runs, and opens the door. Raises: EngineStartError, and then it is dead."""
        self.expect(EngineState.STARTING)
        try:
            await self.launch.end()
            await self.launch.start(self.settings_for(self.limits), on_progress)
            await self._open_up()
        except EngineError as error:
            await self.die(str(error))
            if isinstance(error, EngineStartError):
                raise
            raise EngineStartError(f"The engine came up, but can't be used: {error}") from error
        except Exception as error:  # a full disk, say: only what is dead is tried again
            why = f"The engine couldn't be brought up: {_told(error)}"
            await self.die(why)
            raise EngineStartError(why) from error

    async def die(self, why: str) -> None:
        """It is dead, and nothing of it is left."""
        self.state, self.trouble, self._is_asleep = EngineState.DEAD, why, False
        self.admission.close()
        if self._stable_at is not None and time.monotonic() > self._stable_at:
            self._deaths_in_a_row = 0
        self._stable_at = None
        self._deaths_in_a_row += 1
        logger.error("The engine is dead: %s", why)
        await self.launch.kill()
        if self._deaths_in_a_row > self.settings.max_restarts:
            self.is_given_up = True
            logger.error("The engine ended %d times in a row and stays down.", self._deaths_in_a_row)

    async def revive(self) -> None:
        """Starts it again. Raises: EngineStartError, and then it is dead."""
        await self.bring_up()
        self.restarts += 1

    async def restart(self, limits: EngineLimits) -> None:
        """Stops it and starts it with these limits; with the old ones, where that fails. Raises: EngineStartError."""
        before = self.limits
        self.admission.close()
        self.forgive()
        self.limits = limits
        try:
            await self.revive()
        except EngineStartError as error:
            if limits == before:
                raise
            self.limits = before
            await self.revive()
            raise EngineStartError(f"The engine has its old limits again, since with the new ones: {error}") from error

    async def give_way(self, loan: Loan) -> None:
        """Lets go of the accelerator, after requests in flight had time to end."""
        if self.launch.session is None:
            return
        deadline = time.monotonic() + self.settings.drain_s
        while self.loan is loan and (left_s := deadline - time.monotonic()) > 0:
            if await self.admission.drained(min(left_s, _POLL_S)):
                break
        if self.loan is not loan:  # nobody wants it any more
            return
        self._is_asleep = loan.how == "sleep" and await fall_asleep(self.client())
        if not self._is_asleep:
            await self.launch.end()
        self.state = EngineState.STOPPED

    async def return_from_loan(self) -> None:
        """Goes on as before the loan. Raises: EngineStartError, and then it is dead."""
        if self.loan or self.is_given_up:  # lent again meanwhile
            return
        was_asleep, self._is_asleep = self._is_asleep, False
        if self.state is EngineState.READY:
            self.admission.open()
        elif not was_asleep:
            await self.bring_up()
        else:
            await self._wake()

    async def stop(self) -> None:
        """Nothing of it is left, and the directory is free."""
        self.state, self._is_asleep = EngineState.STOPPED, False
        self.admission.close()
        self.forgive()
        await self.launch.close()

    def forgive(self) -> None:
        """Deaths so far don't count any more."""
        self.is_given_up, self._deaths_in_a_row = False, 0

    def settings_for(self, limits: EngineLimits) -> VLLMSettings:
        """The settings, with these limits. Raises: EngineStartError for limits that vLLM can't take."""
        settings = replace(
            self.settings,
            max_lora_rank=limits.max_lora_rank,
            max_loras=limits.max_loras,
            max_cpu_loras=limits.max_cpu_loras,
            max_model_len=limits.max_model_len,
        )
        limits_of(self.base, settings, self._device)
        return settings

    async def _wake(self) -> None:
        """Wakes it; where that fails, or what it says then is wrong, it is started anew."""
        try:
            await wake_up(self.client())
            await self._open_up(after_sleep=True)
        except Exception as error:  # noqa: BLE001 (whatever it is: a fresh start mends it, or says why it can't)
            self.trouble = f"The engine didn't wake up well, and was started anew: {_told(error)}"
            logger.error(self.trouble)
            self.expect(EngineState.DEAD)  # so that it is tried again if not even the kill succeeds
            await self.launch.kill()
            await self.revive()

    async def _open_up(self, *, after_sleep: bool = False) -> None:
        """Lets requests in, after whoever has adapters has brought them back. Raises: EngineError."""
        self.generation += 1
        if self.on_up:
            await self._restore(self.on_up, after_sleep)
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
        if self.loan is None:
            self.admission.open()

    async def _restore(self, on_up: OnUp, after_sleep: bool) -> None:
        try:
            async with asyncio.timeout(self.settings.start_timeout_s):
                await on_up(_Admitted(self, after_sleep))
        except TimeoutError as error:
            raise EngineStartError(
                f"Its adapters weren't back after {self.settings.start_timeout_s:.0f} s. Raise start_timeout_s."
            ) from error


def _told(error: Exception) -> str:
    """Its message; with its kind where it wasn't written for readers, such as "KeyError: 'data'"."""
    return str(error) if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"


class _Admitted:
    """The engine as seen by whoever brings its adapters back, before others are let in. Implements `AdapterPlace`."""

    def __init__(self, life: VLLMLife, after_sleep: bool) -> None:
        client = life.client()
        self.after_sleep = after_sleep
        """Whether it woke up, so that a wrong answer is the engine's fault and a fresh start mends it."""
        self.base, self.limits, self.generation = life.base, life.limits, life.generation
        self.load_adapter, self.unload_adapter = client.load_adapter, client.unload_adapter
        self.request = client.request


_TIMEOUT_S = 300.0
"""For moving all weights from the GPU or back; some GB/s."""

logger = logging.getLogger(__name__)


async def fall_asleep(client: VLLMClient) -> bool:
    """Whether vLLM sleeps now; where not, it must be stopped to free the accelerator. What was in flight is aborted."""
    try:
        await _post(client, "/sleep?level=1")
    except (EngineStartError, EngineUnavailableError) as error:
        logger.error("The engine doesn't fall asleep, and is stopped instead: %s", error)
        return False
    return True


async def wake_up(client: VLLMClient) -> None:
    """Returns when the weights are back. Raises: EngineStartError, EngineUnavailableError."""
    await _post(client, "/wake_up")


async def _post(client: VLLMClient, path: str) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT_S), client.request("POST", path) as response:
            said = await response.read()
            if response.status != 200:
                raise EngineStartError(f"vLLM answered {response.status} to {path}: {said.decode(errors='replace')}")
    except TimeoutError as error:
        raise EngineStartError(f"vLLM needed more than {_TIMEOUT_S:.0f} s for {path}.") from error
