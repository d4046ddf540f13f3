"""`tuneloop ui`: the pages as a process of their own, for a server that runs elsewhere."""

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
"""The application from the server's address and the host names under which it may be reached."""


def ui(server: str, host: str, port: int, make_pages: MakePages) -> None:
    """Serve the pages until Ctrl-C.

    Raises:
        StartError: the address of the server can't be one; the port is taken; or strangers would get in without a key.
    """
    server = _check_url(server)
    loopback = host in LOOPBACK_HOSTS
    if not loopback:
        _demand_key(server, host)
    with listen(host, port) as listener:
        out.print(f"The pages are on {server_url(host, listener)}/ and speak to {server}. Stop with Ctrl-C.")
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
            f"--server {server!r} is no address of a server. Give scheme, host and port alone, as in "
            "http://127.0.0.1:8000."
        )
    return server.rstrip("/")


def _demand_key(server: str, host: str) -> None:
    """Refuse a keyless server: anyone who can reach the pages could use its API through them."""
    try:
        answer = httpx.get(f"{server}/v1/models", timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        raise StartError(
            f"{server} can't be reached ({error}), so nobody knows whether it demands a key, as it must before the "
            f"pages may listen on {host}. Start it first, or let the pages listen on 127.0.0.1."
        ) from error
    if answer.status_code != 401:
        raise StartError(
            f"{server} answers without an API key, so on {host} everybody on the network could use it through the "
            "pages. Make a key with `tuneloop keys create` there, or let the pages listen on 127.0.0.1."
        )
