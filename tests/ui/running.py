"""Serves an application on a port of this machine while a test needs it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI


@contextmanager
def running(make_app: Callable[[str], FastAPI], *, port: int = 0) -> Iterator[str]:
    """The URL under which `make_app(url)` answers; port 0 takes a free one."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(make_app(url), log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the application did not start"
                time.sleep(0.02)
            yield url
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive(), "the application did not stop"
