"""`tuneloop ui`: serves only the web pages, for a server that runs elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx
import uvicorn
from fastapi import FastAPI

from server.app.data_dir import StartError
from server.app.http_protocol import BoundedHTTP
from server.app.middleware.body_limit import BodyLimit
from server.app.run import listen, server_url
from server.cli.console import out
from server.settings import LOOPBACK_HOSTS

MakePages = Callable[[str, Sequence[str]], FastAPI]
"""Makes the application from the server's URL and the allowed host names."""


def ui(server: str, host: str, port: int, make_pages: MakePages) -> None:
    """Serve the pages until Ctrl-C.

    Raises:
        StartError: the server's URL is invalid, the port is in use, or the pages would expose a keyless server.
    """
    server = _check_url(server)
    loopback = host in LOOPBACK_HOSTS
    if not loopback:
        _demand_key(server, host)
    with listen(host, port) as listener:
        out.print(f"Serving the pages at {server_url(host, listener)}/ for {server}. Press Ctrl-C to stop.")
        app = make_pages(server, sorted({*LOOPBACK_HOSTS, "[::1]"}) if loopback else ["*"])
        config = uvicorn.Config(
            BodyLimit(app, max_body_bytes=None),
            http=BoundedHTTP,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _check_url(server: str) -> str:
    url = httpx.URL(server.rstrip("/"))
    if url.scheme not in ("http", "https") or not url.host or url.path not in ("", "/"):
        raise StartError(
            f"--server {server!r} isn't a valid server URL. Use only scheme, host and port, like http://127.0.0.1:8000."
        )
    return server.rstrip("/")


def _demand_key(server: str, host: str) -> None:
    """Reject a keyless server: anyone who can reach the pages could use its API through them."""
    try:
        answer = httpx.get(f"{server}/v1/models", timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        raise StartError(
            f"Can't reach {server} ({error}) to check that it requires an API key, as it must before the pages can "
            f"listen on {host}. Start it first, or let the pages listen on 127.0.0.1."
        ) from error
    if answer.status_code != 401:
        raise StartError(
            f"{server} doesn't require an API key, so with the pages on {host} anyone on the network could use it. "
            "Create a key there with `tuneloop keys create`, or let the pages listen on 127.0.0.1."
        )
