"""One supervised vLLM on a Unix socket that only we can open. Implements `serving.engine.Engine`.

It refuses to know adapters' files and the HTTP that clients speak.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from serving.base_model import BaseModel
from serving.client import PassedResponse, VLLMClient, open_session
from serving.device import Device, inspect_device
from serving.engine import EngineLimits, EngineState, OnProgress
from serving.engine_log import failure_of, last_words, stage_of
from serving.errors import EngineStartError, EngineUnavailableError
from serving.kept_process import KeptProcess
from serving.leftovers import end_leftovers, hold_lock, record_engine
from serving.vllm_arguments import LaunchPlan, VLLMSettings, limits_of, plan_launch

_POLL_S = 0.25
_STABLE_S = 300.0
"""Up for this long, an engine that dies again counts as dying for the first time."""
_MAX_BACKOFF_S = 60.0
_MAX_LOG_BYTES = 20 * 2**20

logger = logging.getLogger(__name__)


class VLLMProcess:
    """The engine: one vLLM under its keeper, and the task that restarts it."""

    def __init__(self, base: BaseModel, settings: VLLMSettings, device: Device | None = None) -> None:
        """device: by default what `inspect_device` finds. Raises: EngineStartError for settings that can't be."""
        self._base = base
        self._settings = settings
        self._device = device or inspect_device()
        self._limits = limits_of(base, settings, self._device)
        self._state = EngineState.STOPPED
        self._generation = 0
        self._held = AsyncExitStack()
        self._client: VLLMClient | None = None
        self._socket = Path()
        self._kept: KeptProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._expected_ready_at = 0.0

    @property
    def base(self) -> BaseModel:
        """The base model."""
        return self._base

    @property
    def limits(self) -> EngineLimits:
        """What adapters and requests must fit into."""
        return self._limits

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life."""
        return self._state

    @property
    def generation(self) -> int:
        """How many times it came up."""
        return self._generation

    @property
    def session(self) -> int | None:
        """Session id of vLLM's processes, None when none run."""
        return self._kept.session if self._kept else None

    async def start(self, on_progress: OnProgress | None = None) -> None:
        """Returns when vLLM takes requests. Raises: EngineStartError, and then nothing of it is left."""
        if self._state in (EngineState.STARTING, EngineState.READY):
            raise EngineStartError(f"The engine is {self._state} already. Stop it before starting it again.")
        if importlib.util.find_spec("vllm") is None:
            raise EngineStartError(
                "vLLM isn't installed. Install the cpu extra, or on a machine with a GPU the gpu extra."
            )
        await self.stop()  # of an engine that was given up
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            await self._prepare()
            await self._launch(on_progress)
            self._supervisor = asyncio.create_task(self._supervise())
            undo.pop_all()

    async def stop(self) -> None:
        """Returns when no process of the engine is left."""
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
            self._supervisor = None
        self._state = EngineState.STOPPED
        if self._kept:
            await self._kept.stop()
            self._kept = None
            self._state_file.unlink(missing_ok=True)
        self._client = None
        await self._held.aclose()

    async def is_healthy(self) -> bool:
        """Whether vLLM's own health check passes now."""
        return self._state is EngineState.READY and self._client is not None and await self._client.is_healthy()

    async def load_adapter(self, name: str, path: Path) -> None:
        """See `Engine.load_adapter`."""
        await self._ready_client().load_adapter(name, path)

    async def unload_adapter(self, name: str) -> None:
        """See `Engine.unload_adapter`."""
        await self._ready_client().unload_adapter(name)

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[PassedResponse]:
        """See `Engine.request`."""
        async with self._ready_client().request(method, path, body=body, headers=headers) as response:
            yield response

    @property
    def _state_file(self) -> Path:
        return self._settings.state_dir / "engine.json"

    def _ready_client(self) -> VLLMClient:
        if self._state is EngineState.READY and self._client:
            return self._client
        if self._state is EngineState.STARTING:
            retry_after_s = max(1.0, self._expected_ready_at - time.monotonic())
            raise EngineUnavailableError("The engine is starting. Try again when it is up.", retry_after_s)
        raise EngineUnavailableError(
            f"The engine is {self._state}; the log {self._settings.log_path} may say why.", 30.0
        )

    async def _prepare(self) -> None:
        """Takes the directory, ends what an earlier server left, and opens the way to the socket."""
        self._held.enter_context(hold_lock(self._settings.state_dir / "engine.lock"))
        if ended := await asyncio.to_thread(end_leftovers, self._state_file):
            logger.warning("Ended %d processes that an earlier engine left behind.", ended)
        self._settings.log_path.parent.mkdir(parents=True, exist_ok=True)
        runtime_dir = _make_runtime_dir()
        self._held.callback(shutil.rmtree, runtime_dir, ignore_errors=True)
        self._socket = runtime_dir / "s"
        session = open_session(self._socket)
        self._held.push_async_callback(session.close)
        self._client = VLLMClient(session)

    async def _launch(self, on_progress: OnProgress | None) -> None:
        """Starts vLLM and waits until it takes requests. Raises: EngineStartError, with nothing of it left."""
        self._state = EngineState.STARTING
        plan = await asyncio.to_thread(plan_launch, self._base, self._settings, self._device, self._socket)
        self._expected_ready_at = time.monotonic() + plan.expected_start_s
        self._socket.unlink(missing_ok=True)
        log_start = _rotate(self._settings.log_path)
        self._kept = await KeptProcess.start(
            plan.command, plan.environment, self._settings.log_path, self._settings.stop_grace_s
        )
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._kept.stop)
            record_engine(self._state_file, self._kept.session, plan.command[0], plan.socket.parent)
            await self._until_ready(self._kept, plan, log_start, on_progress)
            undo.pop_all()
        self._generation += 1
        self._state = EngineState.READY

    async def _until_ready(
        self, kept: KeptProcess, plan: LaunchPlan, log_start: int, on_progress: OnProgress | None
    ) -> None:
        started = time.monotonic()
        async with _task(kept.wait()) as ended:
            while not (self._client and await self._client.is_healthy()):
                elapsed_s = time.monotonic() - started
                log = _read_from(self._settings.log_path, log_start)
                if ended.done():
                    raise EngineStartError(
                        f"The engine ended while starting: {failure_of(log, ended.result())} "
                        f"All of its output: {self._settings.log_path}."
                    )
                if elapsed_s > self._settings.start_timeout_s:
                    raise EngineStartError(
                        f"It wasn't ready after {self._settings.start_timeout_s:.0f} s; it was {stage_of(log)}. "
                        f"Raise start_timeout_s, or see {self._settings.log_path}."
                    )
                if on_progress:
                    on_progress(stage_of(log), elapsed_s, plan.expected_start_s)
                await asyncio.wait({ended}, timeout=_POLL_S)

    async def _supervise(self) -> None:
        """Starts vLLM again, after a growing pause, each time that it ends by itself."""
        restarts, up_since = 0, time.monotonic()
        while self._kept:
            returncode = await self._kept.wait()
            self._state = EngineState.DEAD
            words = last_words(_read_from(self._settings.log_path, -20_000))
            logger.error("The engine ended by itself (exit code %d): %s", returncode, words)
            restarts = 0 if time.monotonic() - up_since > _STABLE_S else restarts
            if restarts >= self._settings.max_restarts:
                logger.error("The engine ended %d times in a row and stays down. Restart the server.", restarts + 1)
                return
            await asyncio.sleep(min(2.0**restarts, _MAX_BACKOFF_S))
            restarts += 1
            try:
                await self._launch(None)
                up_since = time.monotonic()
            except EngineStartError as error:
                logger.error("Restart %d of the engine failed: %s", restarts, error)


def _make_runtime_dir() -> Path:
    """A fresh directory of mode 0700 for the socket, with a path that fits the 107 bytes a socket's may have."""
    preferred = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = preferred and len(preferred) < 80 and os.access(preferred, os.W_OK)
    return Path(tempfile.mkdtemp(prefix="tuneloop-", dir=preferred if usable else "/tmp"))  # noqa: S108 (mkdtemp: 0700)


def _rotate(log_path: Path) -> int:
    """Sets a large log aside, and says at which byte the next line will stand."""
    size = log_path.stat().st_size if log_path.exists() else 0
    if size <= _MAX_LOG_BYTES:
        return size
    log_path.replace(log_path.with_name(log_path.name + ".1"))
    return 0


def _read_from(log_path: Path, start: int) -> str:
    """The log from byte `start` on; from the end when negative."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(0, start if start >= 0 else log_path.stat().st_size + start))
            return log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


@asynccontextmanager
async def _task(awaitable: Coroutine[None, None, int]) -> AsyncIterator[asyncio.Task[int]]:
    """`awaitable` as a task that ends with the context."""
    task = asyncio.create_task(awaitable)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
