"""Runs a server: listens, serves until a signal or the end of `story`, and stops everything it started."""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from server.app.build import open_services
from server.app.data_dir import StartError
from server.app.http import create_app
from server.app.http_protocol import BoundedHTTP
from server.app.services import Services
from server.arena.campaigns.generator import AnswerGenerator
from server.settings import Settings
from server.versions.publisher import Publisher
from server.versions.upload import remove_leftovers
from serving import (
    BaseModel,
)

GRACE_S = 3
"""How long requests in flight may take to finish when the server stops."""
KEEP_ALIVE_S = 75
"""An idle connection is kept longer than clients keep theirs (httpx 5 s, aiohttp 15 s, proxies 60 s): the client must
close first, or it may send a request on a connection that is just being closed."""

MountUI = Callable[[FastAPI, str], FastAPI]
"""Mounts the pages on `/` of the app, given the server's URL; returns the app to serve."""

Story = Callable[[Services, str], Coroutine[None, None, bool]]
"""Runs once the server listens: starts the engine, prints. Returns whether to keep serving."""


async def run_server(
    settings: Settings, bases: Sequence[BaseModel], listener: socket.socket, mount_ui: MountUI, story: Story
) -> None:
    """Serve on `listener` until `story` returns False or a signal arrives; then leave nothing running.

    Raises:
        StartError, DatabaseError, EngineStartError: the start failed.
    """
    url = server_url(settings.host, listener)
    async with open_services(settings, bases) as services, run_background_work(services):
        app = create_app(services)
        server = _Server(
            uvicorn.Config(
                mount_ui(app, url) if settings.ui else app,
                log_config=None,
                access_log=False,
                http=BoundedHTTP,
                timeout_graceful_shutdown=GRACE_S,
                timeout_keep_alive=KEEP_ALIVE_S,
                server_header=False,
            )
        )
        _stop_on_signals(server)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        telling = asyncio.create_task(story(services, url))
        await asyncio.wait({serving, telling}, return_when=asyncio.FIRST_COMPLETED)
        try:
            if not telling.done() or telling.result():
                await serving  # where the server ended first, this raises what ended it
        finally:
            server.should_exit = True
            telling.cancel()
            await asyncio.gather(serving, telling, return_exceptions=True)


@asynccontextmanager
async def run_background_work(services: Services) -> AsyncIterator[None]:
    """Run the background work while the context is open: file checks, jobs, webhooks, publishing, campaigns'
    answers."""
    await asyncio.to_thread(remove_leftovers, services.settings)
    parts = (
        services.fleet,
        services.aliases,
        services.files,
        services.webhooks,
        services.runner,
        Publisher(services.registry),
        AnswerGenerator(services.inference, services.campaign_work, concurrency=services.settings.campaign_concurrency),
    )
    async with AsyncExitStack() as stack:
        for part in parts:
            stack.push_async_callback(part.stop)
            await part.start()
        yield


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; called before anything slow starts.

    Raises:
        StartError: the address is in use or isn't this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a token mustn't wait for the next
        return listener
    except OSError as error:
        raise StartError(
            f"Can't listen on {host}, port {port}: {error.strerror or error}. Another program may be using the port "
            f"(`ss -ltnp 'sport = :{port}'` shows which). Stop it, or choose another port with --port."
        ) from error


def server_url(host: str, listener: socket.socket) -> str:
    """Return the server's URL on this machine."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (translated, not bound)
    port = listener.getsockname()[1]
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def log_to_file(data_dir: Path) -> Path:
    """Log to a rotating file, and warnings and errors also to the terminal; return the file's path."""
    path = data_dir / "logs" / "server.log"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = logging.handlers.RotatingFileHandler(path, maxBytes=10 * 2**20, backupCount=3, encoding="utf-8")
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    logging.basicConfig(
        level=logging.INFO, handlers=[file, terminal], format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else the pages' own calls would push out all that matters
    return path


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: it would raise the signal again before the engine is stopped."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _stop_on_signals(server: uvicorn.Server) -> None:
    def stop() -> None:
        server.force_exit = server.should_exit  # the second time, without waiting for answers in flight
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
