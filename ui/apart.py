"""The pages as a separate process: requests for `/v1` are forwarded to a server elsewhere.

So scripts in the browser find the API on the page's origin, as they do when the pages are mounted on the server.
Owns the forwarding. Holds no key: each request carries its caller's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.background import BackgroundTask
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ui.app import mount

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
# For a single connection (RFC 9110, 7.6.1), or set again for the next one.
_NOT_PASSED_ON = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
)
_TIMEOUT = httpx.Timeout(connect=5.0, read=600.0, write=60.0, pool=5.0)


def create_apart_app(server_url: str, *, allowed_hosts: Sequence[str], example_prompts: Sequence[str] = ()) -> FastAPI:
    """Return an app with the pages on `/` and the server's API on `/v1`.

    allowed_hosts: host names under which browsers may reach it; `*` is any. Another site's page can make a browser send
        requests to a loopback address under its own host name; these are refused.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(base_url=server_url, timeout=_TIMEOUT, trust_env=False) as http:
            app.state.http = http
            yield

    app = FastAPI(title="tuneloop pages", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts), www_redirect=False)
    app.add_api_route("/healthz", _healthz)
    app.add_api_route("/v1/{path:path}", _forward, methods=METHODS)
    return mount(app, server_url, example_prompts=example_prompts)


async def _healthz() -> dict[str, str]:
    return {"status": "ok"}


async def _forward(path: str, request: Request) -> Response:
    http: httpx.AsyncClient = request.app.state.http
    headers = [(name, value) for name, value in request.headers.items() if name not in _NOT_PASSED_ON]
    has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
    onward = http.build_request(
        request.method,
        httpx.URL(path=f"/v1/{path}", query=request.url.query.encode()),
        headers=headers,
        content=request.stream() if has_body else None,
    )
    try:
        answer = await http.send(onward, stream=True)
    except httpx.HTTPError as error:
        return _unreachable(http, error)
    kept = {name: value for name, value in answer.headers.items() if name not in _NOT_PASSED_ON}
    return StreamingResponse(
        answer.aiter_raw(), answer.status_code, headers=kept, background=BackgroundTask(answer.aclose)
    )


def _unreachable(http: httpx.AsyncClient, error: httpx.HTTPError) -> Response:
    message = (
        f"The server at {http.base_url} can't be reached ({error or type(error).__name__}). Start it with "
        "`tuneloop up`, or start the pages with another --server."
    )
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": "server_unreachable"}}
    return JSONResponse(body, 502)
