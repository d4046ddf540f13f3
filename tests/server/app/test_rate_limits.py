"""Rate limits as the SDK and curl see them, and what every refusal carries."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import openai
import pytest

from server.access.keys import create_key
from server.app.middleware.rate_limit import RateLimit, duration
from tests.server.conftest import Gateway, StartGateway

LIMITED = "/v1/ratings"
DURATION = re.compile(r"(\d+m)?\d+(\.\d+)?s|\d+ms")


def make_key(gateway: Gateway) -> dict[str, str]:
    with gateway.database.session() as session:
        return {"Authorization": f"Bearer {create_key(session, 'test')[1]}"}


def test_request_over_the_limit_is_429_as_the_sdk_knows_it(start_gateway: StartGateway) -> None:
    gateway = start_gateway(requests_per_minute=2)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    client.models.list()
    client.models.list()
    with pytest.raises(openai.RateLimitError) as refused:
        client.models.list()
    assert (refused.value.code, refused.value.type, refused.value.param) == ("rate_limit_exceeded", "requests", None)
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 30
    assert refused.value.response.headers["x-request-id"]


def test_sdk_waits_as_told_and_gets_through(start_gateway: StartGateway) -> None:
    gateway = start_gateway(requests_per_minute=60)
    assert 429 in {gateway.http.get(LIMITED).status_code for _ in range(90)}
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=4)
    assert client.models.list().data


def test_every_answer_tells_where_the_caller_stands(start_gateway: StartGateway) -> None:
    gateway = start_gateway(requests_per_minute=3)
    for remaining, path in ((2, LIMITED), (1, "/v1/nothing"), (0, "/v1"), (0, LIMITED)):
        headers = gateway.http.get(path).headers
        assert headers["x-ratelimit-limit-requests"] == "3"
        assert headers["x-ratelimit-remaining-requests"] == str(remaining)
        assert DURATION.fullmatch(headers["x-ratelimit-reset-requests"])
    assert gateway.http.get("/healthz").status_code == 200
    assert "x-ratelimit-limit-requests" not in gateway.http.get("/readyz").headers


def test_without_a_limit_there_are_no_such_headers(gateway: Gateway) -> None:
    assert not [name for name in gateway.http.get(LIMITED).headers if name.startswith("x-ratelimit")]


@pytest.mark.both_databases
def test_each_key_has_its_own_share_and_a_bad_one_takes_nobodys(start_gateway: StartGateway) -> None:
    gateway = start_gateway(requests_per_minute=1)
    one, other = make_key(gateway), make_key(gateway)
    assert gateway.http.get(LIMITED, headers=one).status_code == 200
    assert gateway.http.get(LIMITED, headers=one).status_code == 429
    assert gateway.http.get(LIMITED, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert gateway.http.get(LIMITED, headers=other).status_code == 200


def test_bucket_fills_evenly_and_never_over_its_limit() -> None:
    now_s, statuses = 0.0, []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    limited = RateLimit(app, 6, clock=lambda: now_s)
    scope: dict[str, Any] = {"type": "http", "path": "/v1/models", "client": ("10.0.0.1", 1)}

    def ask(count: int) -> int:
        """How many of these requests were answered."""
        statuses.clear()
        for _ in range(count):
            asyncio.run(limited(scope, None, send))  # type: ignore[arg-type]
        return statuses.count(200)

    assert ask(10) == 6
    now_s += 9.9
    assert ask(1) == 0
    now_s += 0.2
    assert ask(2) == 1
    now_s += 3600
    assert ask(10) == 6


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0ms"), (0.25, "250ms"), (1, "1s"), (8.64, "8.64s"), (59.9999, "1m0s"), (360, "6m0s"), (90.5, "1m30.5s")],
)
def test_durations_are_written_as_openai_does(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_every_refusal_has_a_request_id_and_no_sdk_repeats_what_cannot_help(start_gateway: StartGateway) -> None:
    gateway = start_gateway(max_body_bytes=2000)
    assert gateway.http.get(LIMITED, headers={"Host": "evil.example"}).headers["x-request-id"]  # 403
    assert gateway.http.post("/v1/comparisons", content=b"x" * 3000).headers["x-request-id"]  # 413
    assert gateway.http.get("/v1/nothing").headers["x-request-id"]  # 404
    make_key(gateway)
    gateway.know_keys()
    refused = gateway.http.get(LIMITED)
    assert (refused.status_code, bool(refused.headers["x-request-id"])) == (401, True)
