"""Asks a vLLM over its Unix socket without the event loop, so that a loop that is late finds nothing amiss with it.

On the loop, a time-out can end before what came in time was looked at: uvloop runs timers first. Here the kernel says
whether there was an answer. What that means for the engine is decided by the watchdog.
"""

import asyncio
import contextlib
import http.client
import socket as sockets
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Probed:
    """What came of one question."""

    status: int | None = None
    """HTTP status code; None where no answer came."""
    body: bytes = b""
    is_refused: bool = False
    """Whether the connection wasn't taken, or ended before the answer did; else it was taken, and nothing came."""


async def probe(socket: Path, path: str, timeout_s: float) -> Probed:
    """What came of GET `path` on this socket; nothing, where it was silent for `timeout_s`."""
    loop = asyncio.get_running_loop()
    probed: asyncio.Future[Probed] = loop.create_future()

    def end(found: Probed) -> None:
        if not probed.done():
            probed.set_result(found)

    def run() -> None:
        found = _ask(str(socket), path, timeout_s)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(end, found)

    # Not asyncio.to_thread: its threads may all be busy for long, and are waited for at the end.
    threading.Thread(target=run, name="health-probe", daemon=True).start()
    return await probed


def _ask(socket: str, path: str, timeout_s: float) -> Probed:
    with contextlib.closing(_Connection(socket, timeout_s)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return Probed(answer.status, answer.read())
        except (TimeoutError, BlockingIOError):  # the latter: its queue of connections is full, so it is busy
            return Probed()
        except (OSError, http.client.HTTPException):
            return Probed(is_refused=True)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
