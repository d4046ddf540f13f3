"""Detects a vLLM that runs but is as good as dead: it doesn't answer, or has work and makes no progress.

vLLM's /health only shows that its HTTP server lives: with its engine core stopped it still says 200. The core's
messages after each step move its counters, so these are watched as long as a request is waiting. A step may be long,
such as a prompt of many thousand tokens on a CPU, and moves nothing until it is done. So a pause in the counters alone
is no proof: we send a request of our own for one token, and give a busy CPU more time.

Our own event loop may be the late one, and an engine mustn't be killed for that. So probes bypass the loop, and time in
which the loop was blocked doesn't count.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from serving.engines.vllm.client import VLLMClient
from serving.engines.vllm.health_probe import probe
from serving.errors import EngineUnavailableError
from serving.machine.leftovers import session_members

_COUNTERS = re.compile(
    r"^vllm:(?:prompt_tokens_total|generation_tokens_total|iteration_tokens_total_count|request_success_total|"
    r"prefix_cache_queries_total|num_preemptions_total|kv_cache_usage_perc|num_requests_running|num_requests_waiting)"
    r"(?:\{[^}]*\})? (\S+)$",
    re.MULTILINE,
)
"""What only the engine core moves (vLLM 0.32): these stand still once it is stopped, whether requests arrive or not."""
_REFUSED_S = 2.0
"""A server that has accepted no connection for this long won't again: it is about to exit, or hangs forever."""
_REFUSED_PAUSE_S = 0.2
_BUSY_SHARE = 0.2
"""Of one core: a busy engine uses more, an idle or stopped one less (0.1 seen). On a crowded machine a busy one may get
less, too, but its threads are runnable."""
_BUSY_PATIENCE = 10
"""A busy CPU may leave the counters unchanged for this many times the bound."""


class Watchdog:
    """Watches one running vLLM, from its first answer to its end."""

    def __init__(
        self,
        client: VLLMClient,
        socket: Path,
        session: int,
        model: str,
        in_flight: Callable[[], int],
        *,
        stall_timeout_s: float,
        on_cpu: bool,
    ) -> None:
        """socket: vLLM's. session: of its processes. model: a name that it serves. in_flight: returns waiting requests.

        stall_timeout_s: how long it may give no answer or make no progress. on_cpu: whether it computes on the CPU.
        """
        self._client, self._socket, self._session = client, socket, session
        self._in_flight, self._on_cpu = in_flight, on_cpu
        self._timeout_s = stall_timeout_s
        self._pause_s = min(10.0, stall_timeout_s / 6)
        self._token_body = json.dumps({"model": model, "prompt": [0], "max_tokens": 1}).encode()
        self._answer_timeout_s = max(1.0, self._pause_s)
        self._clock = LoopClock()
        self._silent_since: float | None = None
        self._refused_since: float | None = None
        self._moved_at, self._busy_at = 0.0, float("-inf")
        self._counters: list[str] | None = None
        self._cpu_sample = (time.monotonic(), 0.0)
        self._check_requested = asyncio.Event()
        self._check_waiters: list[asyncio.Event] = []
        self._token_request: asyncio.Task[None] | None = None

    async def wait_until_stuck(self) -> str:
        """Wait until it counts as dead, and return why, in a sentence. Doesn't return while it lives."""
        try:
            async with self._clock.running():
                while not (reason := await self._check()):
                    await self._pause()
        finally:
            if self._token_request:
                self._token_request.cancel()
        return reason

    async def check_now(self) -> None:
        """Check now, because a request broke; return when it was seen alive, or after a few seconds."""
        seen_alive = asyncio.Event()
        self._check_waiters.append(seen_alive)
        self._check_requested.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REFUSED_S + self._answer_timeout_s):
                await seen_alive.wait()

    async def _check(self) -> str | None:
        """Run the checks; wake those who asked for them before they began. Return why it is stuck, if it is."""
        self._check_requested.clear()
        waiters, self._check_waiters = self._check_waiters, []
        reason = await self._run_checks()
        if reason is None and self._refused_since is None:
            for waiter in waiters:
                waiter.set()
        else:
            self._check_waiters += waiters
        return reason

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s if self._refused_since is None else _REFUSED_PAUSE_S):
                await self._check_requested.wait()

    async def _run_checks(self) -> str | None:
        return await self._check_health() or await self._check_progress()

    async def _check_health(self) -> str | None:
        asked_at, now = time.monotonic(), self._clock.now()
        answer = await probe(self._socket, "/health", self._answer_timeout_s)
        if answer.status is not None and answer.status >= 500:
            return f"vLLM's health check returned {answer.status}: its engine core has died."
        self._refused_since = _start_of(self._refused_since, asked_at) if answer.is_refused else None
        self._silent_since = _start_of(self._silent_since, now) if answer.status is None else None
        # A server that refuses connections never accepts any again, so only the two times matter, not what is between.
        if self._refused_since is not None and asked_at - self._refused_since > _REFUSED_S:
            return "vLLM is running but no longer accepts connections."
        silent_s = 0.0 if self._silent_since is None else self._clock.now() - self._silent_since
        if silent_s >= self._timeout_s:
            return f"vLLM's HTTP server hasn't answered its health check for {silent_s:.0f} s."
        return None

    async def _check_progress(self) -> str | None:
        now = self._clock.now()
        if not self._in_flight():
            self._counters, self._moved_at = None, now
            return None
        counters = await self._read_counters()
        if counters is not None and counters != self._counters:
            self._counters, self._moved_at = counters, now
        if self._is_busy():
            self._busy_at = now
        busy = now - self._busy_at < self._timeout_s / 2
        still_s = now - self._moved_at
        if still_s >= self._timeout_s / 2 and (self._token_request is None or self._token_request.done()):
            self._token_request = asyncio.create_task(self._request_token())
        if still_s < self._timeout_s * (_BUSY_PATIENCE if busy else 1):
            return None
        return f"{self._in_flight()} requests are waiting, and vLLM has made no progress for {still_s:.0f} s."

    async def _read_counters(self) -> list[str] | None:
        answer = await probe(self._socket, "/metrics", self._answer_timeout_s)
        return None if answer.status is None else _COUNTERS.findall(answer.body.decode(errors="replace"))

    async def _request_token(self) -> None:
        """Request one token: an answer proves progress, even if clients are slow to read what has been generated."""
        with contextlib.suppress(TimeoutError, EngineUnavailableError):
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.request("POST", "/v1/completions", body=self._token_body) as response,
            ):
                await response.read()
                if response.status == 200:
                    self._moved_at = self._clock.now()

    def _is_busy(self) -> bool:
        """Whether the CPU works for the engine, or would if others left it any time; a GPU's work doesn't show."""
        pids = [pid for pid in session_members(self._session) if pid != self._session]  # without the HTTP server
        (before, used_before), (now, used) = self._cpu_sample, (time.monotonic(), sum(map(_cpu_seconds, pids)))
        self._cpu_sample = (now, used)
        share = (used - used_before) / max(now - before, 0.001)
        return self._on_cpu and (share > _BUSY_SHARE or any(map(_has_runnable_thread, pids)))


def _start_of(before: float | None, now: float) -> float:
    """Return when the condition that holds now began to hold."""
    return now if before is None else before


def _has_runnable_thread(pid: int) -> bool:
    """Return whether one of the process's threads runs, or waits for a core."""
    return any("R" in _read_stat(stat)[:1] for stat in Path(f"/proc/{pid}/task").glob("*/stat"))


def _cpu_seconds(pid: int) -> float:
    """Return the seconds in user and kernel mode (proc(5): utime and stime); 0 for a process that is gone."""
    fields = _read_stat(Path(f"/proc/{pid}/stat"))
    return (int(fields[11]) + int(fields[12])) / 100 if fields else 0.0  # USER_HZ is 100 wherever vLLM runs


def _read_stat(file: Path) -> list[str]:
    """Return the fields of a stat file from the state on; none for a process that is gone."""
    try:
        return file.read_text().rpartition(")")[2].split()
    except OSError:
        return []


_TICK_S = 0.25
_MOST_S = 2 * _TICK_S
"""Time between two ticks counts up to this: a loop is always a little late."""


class LoopClock:
    """A clock that stops while the event loop is blocked: a blocked loop sees nothing of what happens meanwhile."""

    def __init__(self) -> None:
        self._passed_s = 0.0
        self._ticked_at = time.monotonic()

    def now(self) -> float:
        """Return the seconds since it was made, without those in which the loop was blocked."""
        return self._passed_s + min(time.monotonic() - self._ticked_at, _MOST_S)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the clock until the context is left; otherwise it stands still."""
        self._ticked_at = time.monotonic()
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._passed_s, self._ticked_at = self.now(), time.monotonic()
