"""The wire as the pages see it, against a real application in the same process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from ui.server_client import Model, Problem, ServerClient, UIError, problem_of, read_events


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def collect(events: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event async for event in events]


def client_of(app: FastAPI) -> ServerClient:
    return ServerClient("http://tuneloop.test", transport=httpx.ASGITransport(app))


def test_events_cut_anywhere_arrive_whole() -> None:
    event = {"type": "comparison.delta", "side": "left", "delta": "two\u2028lines\u0085 and 中文"}
    stream = b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\ndata: [DONE]\n\n"
    for cut in range(len(stream)):
        assert asyncio.run(collect(read_events(chunks(stream[:cut], stream[cut:])))) == [event]


def test_a_stream_without_done_is_cut_off() -> None:
    with pytest.raises(UIError) as caught:
        asyncio.run(collect(read_events(chunks(b'data: {"type": "comparison.created"}\n\n'))))
    assert caught.value.problem.kind == "cut_off"


def test_an_error_object_ends_the_stream() -> None:
    error = {"error": {"message": "gone", "type": "server_error", "param": None, "code": "engine_unavailable"}}
    with pytest.raises(UIError) as caught:
        asyncio.run(collect(read_events(chunks(b"data: " + json.dumps(error).encode() + b"\n\n"))))
    assert caught.value.problem == Problem("engine_down", "gone")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "invalid_api_key", "unauthorized"),
        (404, "model_not_found", "model_not_found"),
        (400, "context_length_exceeded", "too_long"),
        (409, "already_rated", "already_rated"),
        (400, "too_few_pairs", "too_few_pairs"),
        (429, None, "too_busy"),
        (503, None, "engine_down"),
        (400, None, "rejected"),
        (500, "internal_error", "server_error"),
    ],
)
def test_an_error_answer_becomes_its_kind_with_the_servers_message(status: int, code: str | None, kind: str) -> None:
    error_type = "server_error" if status >= 500 else "invalid_request_error"
    body = json.dumps({"error": {"message": "why", "type": error_type, "param": None, "code": code}}).encode()
    assert problem_of(status, body) == Problem(kind, "why")  # type: ignore[arg-type]


def test_an_error_page_that_is_not_json_still_says_its_status() -> None:
    assert problem_of(500, b"<html>oops</html>") == Problem("server_error", "HTTP 500")


def test_a_port_where_nobody_listens_is_unreachable(unused_url: str) -> None:
    client = ServerClient(unused_url)
    assert asyncio.run(client.readiness()) == "unreachable"
    with pytest.raises(UIError) as caught:
        asyncio.run(client.models(""))
    assert caught.value.problem.kind == "unreachable"
    with pytest.raises(UIError) as caught:
        asyncio.run(collect(client.stream("/v1/comparisons", "", {})))
    assert caught.value.problem.kind == "unreachable"


def test_the_key_travels_in_the_header_alone() -> None:
    app = FastAPI()
    seen: list[Request] = []

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        seen.append(request)
        return {"data": [{"id": "base"}, {"id": "ft:base:personal:x:12345678", "parent": "base"}]}

    found = asyncio.run(client_of(app).models("sk-secret"))
    assert found == [Model("base", None), Model("ft:base:personal:x:12345678", "base")]
    assert seen[0].headers["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(seen[0].url)


def test_a_key_that_no_header_can_carry_is_refused_before_it_is_sent() -> None:
    with pytest.raises(UIError) as caught:
        asyncio.run(client_of(FastAPI()).models("钥匙"))
    assert caught.value.problem.kind == "unauthorized"


@pytest.mark.parametrize(
    ("status", "state", "readiness"),
    [(200, "ready", "ready"), (503, "starting", "starting"), (503, "unhealthy", "down")],
)
def test_readiness_is_the_servers(status: int, state: str, readiness: str) -> None:
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        return JSONResponse({"status": state}, status)

    assert asyncio.run(client_of(app).readiness()) == readiness


def test_a_query_leaves_out_what_is_none() -> None:
    app = FastAPI()

    @app.get("/v1/files")
    async def files(request: Request) -> dict[str, Any]:
        return {"asked": str(request.url.query)}

    asked = client_of(app).call("GET", "/v1/files", "", query={"limit": 3, "after": None})
    assert asyncio.run(asked) == {"asked": "limit=3"}
