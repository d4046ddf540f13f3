"""Probes a vLLM over its Unix socket without the event loop, so that a late loop isn't mistaken for a dead engine.

On the loop, a timeout can fire before data that arrived in time is seen: uvloop runs timers first. Here the kernel says
whether there was an answer. The watchdog decides what that means for the engine.
"""

import asyncio
import contextlib
import http.client
import socket as sockets
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProbeResult:
    """The result of one probe."""

    status: int | None = None
    """HTTP status code; None without an answer."""
    body: bytes = b""
    is_refused: bool = False
    """Whether the connection was refused, or closed before the answer; else it was accepted, and nothing came."""


async def probe(socket: Path, path: str, timeout_s: float) -> ProbeResult:
    """Probe GET `path` on this socket; `status` is None if nothing came within `timeout_s`."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[ProbeResult] = loop.create_future()

    def set_result(outcome: ProbeResult) -> None:
        if not result.done():
            result.set_result(outcome)

    def run() -> None:
        outcome = _get(str(socket), path, timeout_s)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is waiting
            loop.call_soon_threadsafe(set_result, outcome)

    # Not asyncio.to_thread: its threads may all be busy for long, and shutdown waits for them.
    threading.Thread(target=run, name="health-probe", daemon=True).start()
    return await result


def _get(socket: str, path: str, timeout_s: float) -> ProbeResult:
    with contextlib.closing(_Connection(socket, timeout_s)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return ProbeResult(answer.status, answer.read())
        except (TimeoutError, BlockingIOError):  # the latter: its backlog is full, so it is busy
            return ProbeResult()
        except (OSError, http.client.HTTPException):
            return ProbeResult(is_refused=True)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
