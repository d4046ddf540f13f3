"""The thinnest gateways that one writes in an afternoon, as peers.

    python -m benchmarks.pass_through aiohttp|httpx UNIX_SOCKET PORT

They pass bytes on and do nothing else: no keys, no limits, no adapters, no errors in OpenAI's words.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import aiohttp
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

JSON = {"content-type": "application/json"}
KEPT_S = 2
"""Less than the 5 s of vLLM, or now and then a request meets a connection that is just being closed and fails."""


def with_aiohttp(uds: str) -> Starlette:
    """Passes chats on with aiohttp, over kept connections."""
    sessions: list[aiohttp.ClientSession] = []

    async def chat(request: Request) -> Response:
        if not sessions:
            connector = aiohttp.UnixConnector(uds, limit=0, keepalive_timeout=KEPT_S)
            sessions.append(
                aiohttp.ClientSession("http://engine", connector=connector, timeout=aiohttp.ClientTimeout())
            )
        answer = await sessions[0].post(request.url.path, data=await request.body(), headers=JSON)

        async def chunks() -> AsyncIterator[bytes]:
            async with answer:
                async for chunk in answer.content.iter_any():
                    yield chunk

        return StreamingResponse(chunks(), answer.status, media_type=answer.headers["content-type"])

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


def with_httpx(uds: str) -> Starlette:
    """Passes chats on with httpx, over kept connections."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEPT_S)
    client = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=uds, limits=limits), timeout=None)

    async def chat(request: Request) -> Response:
        asked = client.build_request(
            "POST", "http://engine/v1/chat/completions", content=await request.body(), headers=JSON
        )
        answer = await client.send(asked, stream=True)

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in answer.aiter_raw():
                yield chunk
            await answer.aclose()

        return StreamingResponse(chunks(), answer.status_code, media_type=answer.headers["content-type"])

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


if __name__ == "__main__":
    app = {"aiohttp": with_aiohttp, "httpx": with_httpx}[sys.argv[1]](sys.argv[2])
    uvicorn.run(app, port=int(sys.argv[3]), loop="uvloop", http="httptools", log_level="error", access_log=False)
