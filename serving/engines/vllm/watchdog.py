"""Says when a vLLM that still runs is as good as dead: it doesn't answer, or has work and doesn't move.

It refuses to know what is done about that, and who asked for the work.

vLLM's /health tells only that its HTTP server lives: with its engine core stopped it goes on to say 200. Its counters
are moved by what the core sends after each step, so they are watched as long as somebody waits for an answer. A step
may be long, such as a prompt of many thousand tokens on a processor, and moves nothing until it is done. So a pause in
the counters alone is no proof: a request of our own for one token is made, and a processor at work is given more time.

Our own event loop may be the late one, and an engine mustn't die for that. So it is asked without the loop, and time in
which the loop stood still counts against nobody.
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
"""What only the engine core moves (vLLM 0.32): seen to stand still once it is stopped, requests arriving or not."""
_REFUSED_S = 2.0
"""A server that has taken no connection for so long won't again: it is seconds from its end, or will never end."""
_REFUSED_PAUSE_S = 0.2
_BUSY_SHARE = 0.2
"""Of one core: an engine at work takes more, an idle or stopped one less (0.1 seen). On a crowded machine one at work
may get less, too, but its threads are ready to run."""
_BUSY_PATIENCE = 10
"""A processor at work may leave the counters alone for this many times the bound."""


class Watchdog:
    """Looks at one running vLLM, from its first answer to its end."""

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
        """socket: vLLM's. session: of its processes. model: a name that it answers to. in_flight: requests that wait.

        stall_timeout_s: how long it may neither answer nor move. on_cpu: whether its processors do the work.
        """
        self._client, self._socket, self._session = client, socket, session
        self._in_flight, self._on_cpu = in_flight, on_cpu
        self._timeout_s = stall_timeout_s
        self._pause_s = min(10.0, stall_timeout_s / 6)
        self._question = json.dumps({"model": model, "prompt": [0], "max_tokens": 1}).encode()
        self._answer_timeout_s = max(1.0, self._pause_s)
        self._time = LoopTime()
        self._silent_since: float | None = None
        self._refused_since: float | None = None
        self._moved_at, self._at_work_at = 0.0, float("-inf")
        self._counters: list[str] | None = None
        self._processor = (time.monotonic(), 0.0)
        self._doubted = asyncio.Event()
        self._doubters: list[asyncio.Event] = []
        self._asking: asyncio.Task[None] | None = None

    async def until_stuck(self) -> str:
        """Why it counts as dead, in a sentence. Doesn't return while it lives."""
        try:
            async with self._time.going():
                while not (reason := await self._look_for_doubters()):
                    await self._rest()
        finally:
            if self._asking:
                self._asking.cancel()
        return reason

    async def doubt(self) -> None:
        """Has it looked at now, because a request broke; returns when it was seen to live, or after a few seconds."""
        seen_alive = asyncio.Event()
        self._doubters.append(seen_alive)
        self._doubted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REFUSED_S + self._answer_timeout_s):
                await seen_alive.wait()

    async def _look_for_doubters(self) -> str | None:
        """What a look came to; those are told who doubted before it began."""
        self._doubted.clear()
        doubters, self._doubters = self._doubters, []
        reason = await self._look()
        if reason is None and self._refused_since is None:
            for doubter in doubters:
                doubter.set()
        else:
            self._doubters += doubters
        return reason

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s if self._refused_since is None else _REFUSED_PAUSE_S):
                await self._doubted.wait()

    async def _look(self) -> str | None:
        return await self._health() or await self._motion()

    async def _health(self) -> str | None:
        asked_at, now = time.monotonic(), self._time.now()
        answer = await probe(self._socket, "/health", self._answer_timeout_s)
        if answer.status is not None and answer.status >= 500:
            return f"vLLM's health check says {answer.status}: its engine core is gone."
        self._refused_since = _since(self._refused_since, asked_at) if answer.is_refused else None
        self._silent_since = _since(self._silent_since, now) if answer.status is None else None
        # What refuses connections never takes any again, so the two times count, and not where we were between them.
        if self._refused_since is not None and asked_at - self._refused_since > _REFUSED_S:
            return "vLLM runs, but takes no connections any more."
        silent_s = 0.0 if self._silent_since is None else self._time.now() - self._silent_since
        if silent_s >= self._timeout_s:
            return f"vLLM's HTTP server hasn't answered its health check for {silent_s:.0f} s."
        return None

    async def _motion(self) -> str | None:
        now = self._time.now()
        if not self._in_flight():
            self._counters, self._moved_at = None, now
            return None
        counters = await self._read_counters()
        if counters is not None and counters != self._counters:
            self._counters, self._moved_at = counters, now
        if self._is_at_work():
            self._at_work_at = now
        busy = now - self._at_work_at < self._timeout_s / 2
        still_s = now - self._moved_at
        if still_s >= self._timeout_s / 2 and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask_for_a_token())
        if still_s < self._timeout_s * (_BUSY_PATIENCE if busy else 1):
            return None
        return f"{self._in_flight()} requests wait for vLLM, and nothing in it has moved for {still_s:.0f} s."

    async def _read_counters(self) -> list[str] | None:
        answer = await probe(self._socket, "/metrics", self._answer_timeout_s)
        return None if answer.status is None else _COUNTERS.findall(answer.body.decode(errors="replace"))

    async def _ask_for_a_token(self) -> None:
        """An answer proves that the engine moves, even where its callers are slow to read what it has made."""
        with contextlib.suppress(TimeoutError, EngineUnavailableError):
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.request("POST", "/v1/completions", body=self._question) as response,
            ):
                await response.read()
                if response.status == 200:
                    self._moved_at = self._time.now()

    def _is_at_work(self) -> bool:
        """Whether the processors work for the engine, or would if others left them any; a GPU's work doesn't show."""
        pids = [pid for pid in session_members(self._session) if pid != self._session]  # that is the HTTP server
        (before, used_before), (now, used) = self._processor, (time.monotonic(), sum(map(_used_s, pids)))
        self._processor = (now, used)
        share = (used - used_before) / max(now - before, 0.001)
        return self._on_cpu and (share > _BUSY_SHARE or any(map(_wants_a_core, pids)))


def _since(before: float | None, now: float) -> float:
    """When what is so now began to be so."""
    return now if before is None else before


def _wants_a_core(pid: int) -> bool:
    """Whether one of the process's threads runs, or waits for a core to run on."""
    return any("R" in _stat(stat)[:1] for stat in Path(f"/proc/{pid}/task").glob("*/stat"))


def _used_s(pid: int) -> float:
    """Seconds in user and kernel mode (proc(5): utime and stime); 0 for a process that is gone."""
    fields = _stat(Path(f"/proc/{pid}/stat"))
    return (int(fields[11]) + int(fields[12])) / 100 if fields else 0.0  # USER_HZ is 100 wherever vLLM runs


def _stat(file: Path) -> list[str]:
    """The fields of a stat file from the state on; none of a process that is gone."""
    try:
        return file.read_text().rpartition(")")[2].split()
    except OSError:
        return []


_TICK_S = 0.25
_MOST_S = 2 * _TICK_S
"""What passes between two ticks counts up to this: a loop is always a little late."""


class LoopTime:
    """Seconds in which the loop turned: one that something blocked has seen nothing of what happened meanwhile."""

    def __init__(self) -> None:
        self._passed_s = 0.0
        self._ticked_at = time.monotonic()

    def now(self) -> float:
        """Seconds since it was made, but for those in which the loop stood still."""
        return self._passed_s + min(time.monotonic() - self._ticked_at, _MOST_S)

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """It goes until the context is left; before and after that it stands."""
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
