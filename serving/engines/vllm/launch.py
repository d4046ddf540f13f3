"""vLLM's processes on this machine: the runtime directory, start, readiness, end."""

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from serving.base_model import BaseModel
from serving.engines.engine import OnProgress
from serving.engines.vllm.arguments import LaunchPlan, VLLMSettings
from serving.engines.vllm.client import VLLMClient, open_session
from serving.engines.vllm.log import explain_failure, lacks_memory, last_error_line, parse_stage
from serving.errors import EngineMemoryError, EngineStartError
from serving.machine.device import Device
from serving.machine.kept_process import KeptProcess
from serving.machine.leftovers import end_leftovers, hold_engine_lock, record_engine

Planner = Callable[[BaseModel, VLLMSettings, Device, Path], LaunchPlan]
"""Returns how to start vLLM on a socket: `plan_launch`."""

_POLL_S = 0.25
_MAX_LOG_BYTES = 20 * 2**20

logger = logging.getLogger(__name__)


class VLLMLaunch:
    """A runtime directory for vLLM and the process that runs in it."""

    def __init__(self, base: BaseModel, settings: VLLMSettings, device: Device, planner: Planner) -> None:
        self._base, self._settings, self._device, self._planner = base, settings, device, planner
        self._resources = AsyncExitStack()
        self.socket = Path()
        """Where vLLM listens, while the directory is open."""
        self._process: KeptProcess | None = None
        self.client: VLLMClient | None = None
        """The client of vLLM, while the directory is open."""
        self.expected_ready_at = 0.0
        """On the clock of time.monotonic(): when the last start is expected to be ready."""
        self.start_s: float | None = None
        """How long the last start took, in seconds."""

    @property
    def session(self) -> int | None:
        """Session id of vLLM's processes, None when none run."""
        return self._process.session if self._process else None

    async def open(self) -> None:
        """Lock the directory, end what an earlier server left behind, and prepare the socket and its client.

        Raises: EngineStartError when another server holds the directory.
        """
        self._resources.enter_context(hold_engine_lock(self._settings.state_dir))
        if ended := await asyncio.to_thread(end_leftovers, self._state_file):
            logger.warning("Ended %d processes that an earlier engine left behind.", ended)
        self._settings.log_path.parent.mkdir(parents=True, exist_ok=True)
        runtime_dir = _make_runtime_dir()
        self._resources.callback(shutil.rmtree, runtime_dir, ignore_errors=True)
        self.socket = runtime_dir / "s"
        session = open_session(self.socket)
        self._resources.push_async_callback(session.close)
        self.client = VLLMClient(session)

    async def close(self) -> None:
        """Return once no process is left and the directory is unlocked."""
        await self.end()
        self.client = None
        await self._resources.aclose()

    async def start(self, settings: VLLMSettings, on_progress: OnProgress | None = None) -> None:
        """Return once vLLM answers. Raises: EngineStartError, with nothing of it left."""
        plan = await asyncio.to_thread(self._planner, self._base, settings, self._device, self.socket)
        started = time.monotonic()
        self.expected_ready_at = started + (self.start_s or plan.expected_start_s)
        self.socket.unlink(missing_ok=True)
        log_start = _rotate(settings.log_path)
        self._process = process = await KeptProcess.start(
            plan.command, plan.environment, settings.log_path, settings.stop_grace_s, cores=plan.cores
        )
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.kill)
            record_engine(self._state_file, process.session, plan.command[0], plan.socket.parent)
            await self._wait_until_ready(process, plan, log_start, on_progress)
            undo.pop_all()
        self.start_s = time.monotonic() - started

    async def wait_for_end(self) -> str:
        """Wait until vLLM ends by itself, and return why: its exit code and last error."""
        if self._process is None:
            raise EngineStartError("vLLM isn't running. Start it first.")
        returncode = await self._process.wait()
        words = last_error_line(_read_from(self._settings.log_path, -20_000))
        return f"vLLM exited unexpectedly (exit code {returncode}): {words}"

    async def end(self) -> None:
        """Ask vLLM to exit; return once nothing of it is left."""
        if self._process:
            await self._process.stop()
            self._clear_process()

    async def kill(self) -> None:
        """Kill vLLM; return once nothing of it is left."""
        if self._process:
            await self._process.kill()
            self._clear_process()

    @property
    def _state_file(self) -> Path:
        return self._settings.state_dir / "engine.json"

    def _clear_process(self) -> None:
        self._process = None
        with contextlib.suppress(OSError):  # if it stays, the next start finds that its processes are gone
            self._state_file.unlink()

    async def _wait_until_ready(
        self, process: KeptProcess, plan: LaunchPlan, log_start: int, on_progress: OnProgress | None
    ) -> None:
        started = time.monotonic()
        async with _running_task(process.wait()) as ended:
            while not (self.client and await self.client.is_healthy()):
                elapsed_s = time.monotonic() - started
                log = _read_from(self._settings.log_path, log_start)
                if ended.done():
                    # Where others use memory that the engine could have, there may be more when they have ended.
                    may_pass = plan.is_reduced and lacks_memory(log)
                    raise (EngineMemoryError if may_pass else EngineStartError)(
                        f"The engine exited while starting: {explain_failure(log, ended.result())} Full output: "
                        f"{self._settings.log_path}."
                    )
                if elapsed_s > self._settings.start_timeout_s:
                    raise EngineStartError(
                        f"It wasn't ready after {self._settings.start_timeout_s:.0f} s; it was still "
                        f"{parse_stage(log)}. Raise engine_start_timeout_s, or see {self._settings.log_path}."
                    )
                if on_progress:
                    on_progress(parse_stage(log), elapsed_s, plan.expected_start_s)
                await asyncio.wait({ended}, timeout=_POLL_S)


def _make_runtime_dir() -> Path:
    """Create a directory of mode 0700 for the socket, with a path that fits into the 107 bytes of a socket's path."""
    preferred = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = preferred and len(preferred) < 80 and os.access(preferred, os.W_OK)
    return Path(tempfile.mkdtemp(prefix="tuneloop-", dir=preferred if usable else "/tmp"))  # noqa: S108 (mkdtemp: 0700)


def _rotate(log_path: Path) -> int:
    """Rotate a large log; return the byte offset of the next line."""
    size = log_path.stat().st_size if log_path.exists() else 0
    if size <= _MAX_LOG_BYTES:
        return size
    log_path.replace(log_path.with_name(log_path.name + ".1"))
    return 0


def _read_from(log_path: Path, start: int) -> str:
    """Return the log from byte `start` on; counted from the end when negative."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(0, start if start >= 0 else log_path.stat().st_size + start))
            return log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


@asynccontextmanager
async def _running_task(awaitable: Coroutine[None, None, int]) -> AsyncIterator[asyncio.Task[int]]:
    """Run `awaitable` as a task that is cancelled with the context."""
    task = asyncio.create_task(awaitable)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
