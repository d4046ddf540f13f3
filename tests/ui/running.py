"""Serves an application on a port of this machine while a test needs it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from tests.http_server import HTTPServer


@contextmanager
def running(make_app: Callable[[str], FastAPI], *, port: int = 0) -> Iterator[str]:
    """The URL under which `make_app(url)` answers; port 0 takes a free one."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = HTTPServer(make_app(url), listener)
        try:
            yield url
        finally:
            server.stop()
