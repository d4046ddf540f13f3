"""An application on a port of this machine, served by a thread of the test's process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import uvicorn
from fastapi import FastAPI

STOP_TIMEOUT_S = 15


class HTTPServer:
    """Answers once it is made."""

    def __init__(self, app: FastAPI, listener: socket.socket, **config: object) -> None:
        """config: more of `uvicorn.Config`."""
        given: dict[str, object] = {"log_config": None, "timeout_graceful_shutdown": 1} | config
        self._server = _Server(uvicorn.Config(app, **given))  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the application did not start"
            time.sleep(0.005)

    def stop(self) -> None:
        """Returns when it has ended. May be called again."""
        self._server.stop()
        self._thread.join(STOP_TIMEOUT_S)
        assert not self._thread.is_alive(), "the application did not stop"


class _Server(uvicorn.Server):
    """Notices at once that it is to stop, not when the next tenth of a second is over."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.on_tick(0)
        await self._ended.wait()

    def stop(self) -> None:
        while self._loop is None:  # it has started, and is on the way to its loop
            time.sleep(0.005)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ended.set)
