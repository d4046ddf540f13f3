"""Every error, of whatever origin, leaves as OpenAI's envelope with a status that is the client's to act on."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest

from serving import EngineState, EngineUnavailableError
from tests.server.conftest import Gateway, StartGateway
from tests.server.fake_engine import FakeAnswer, streamed

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, "invalid_json"),
        (b"{", None, "invalid_json"),
        (b"\xff\xfe", None, "invalid_json"),
        (b"[]", None, "invalid_json"),
        (b"null", None, "invalid_json"),
        (b"[" * 100_000, None, "invalid_json"),
        (rb'{"model": "base", "messages": [], "stop": ["\ud800"]}', None, "invalid_json"),
        (rb'{"model": "base", "messages": [], "vllm_xargs": {"\udfff a": 1}}', None, "invalid_json"),
        (rb'{"model": "base", "messages": [], "temperature": NaN, "cache_salt": "\ude00"}', None, "invalid_json"),
        (b"{}", "model", "missing_required_parameter"),
        (b'{"model": 7}', "model", "invalid_type"),
        (b'{"model": ""}', "model", "invalid_type"),
        (b'{"model": ["a"]}', "model", "invalid_type"),
        (
            b'{"model": "base", "vllm_xargs": {"kv_transfer_params": "x"}}',
            "vllm_xargs.kv_transfer_params",
            "unknown_parameter",
        ),
        (
            b'{"model": "base", "vllm_xargs": {"ec_transfer_params": 1}}',
            "vllm_xargs.ec_transfer_params",
            "unknown_parameter",
        ),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/embeddings"])
def test_malformed_body_is_400(shared_gateway: Gateway, path: str, body: bytes, param: str | None, code: str) -> None:
    response = shared_gateway.http.post(path, content=body)
    assert response.status_code == 400
    error = shared_gateway.error(response)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert shared_gateway.engine.requests == []


@pytest.mark.parametrize("model", ["nobody", "../../etc/passwd", "/etc", "ft:a:b:c:12345678", "base\x00", "ä" * 5000])
def test_unknown_model_is_404_model_not_found(shared_gateway: Gateway, model: str) -> None:
    response = shared_gateway.http.post(CHAT, json={"model": model, "messages": []})
    assert response.status_code == 404
    error = shared_gateway.error(response)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert shared_gateway.engine.requests == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("POST", "/v1/load_lora_adapter", 404, "unknown_url"),
        ("POST", "/v1/../tokenize", 404, "unknown_url"),
        ("GET", "/v1/models/no%2Fsuch", 404, "model_not_found"),
        ("DELETE", "/v1/models/base", 400, "base_model"),
        ("DELETE", "/v1/models/nobody", 404, "model_not_found"),
        ("DELETE", "/v1/adapters/adapter-0", 404, "adapter_not_found"),
        ("GET", "/v1/comparisons/cmp_0", 404, "comparison_not_found"),
        ("GET", "/v1/ratings?limit=0", 400, "integer_below_min_value"),
        ("GET", "/v1/ratings?after=x", 400, "rating_not_found"),
        ("GET", "/v1", 404, "unknown_url"),
        ("TRACE", "/v1/models", 404, "unknown_url"),
        ("PURGE", "/v1/models", 404, "unknown_url"),
        ("OPTIONS", "/v1/chat/completions", 404, "unknown_url"),
        ("GET", "/v1/ratings/export?format=exe", 400, "invalid_value"),
        ("PUT", "/healthz", 405, "method_not_allowed"),
    ],
)
def test_wrong_requests_are_4xx(shared_gateway: Gateway, method: str, path: str, status: int, code: str) -> None:
    response = shared_gateway.http.request(method, path)
    assert response.status_code == status
    assert shared_gateway.error(response)["code"] == code


def test_announced_body_over_the_cap_is_413(start_gateway: StartGateway) -> None:
    gateway = start_gateway(max_body_bytes=2048)
    response = gateway.http.post(CHAT, content=b"x" * 2049)
    assert response.status_code == 413
    assert gateway.error(response)["code"] == "request_too_large"


@pytest.mark.parametrize("path", [CHAT, "/v1/comparisons"])
def test_unannounced_body_over_the_cap_is_413(start_gateway: StartGateway, path: str) -> None:
    gateway = start_gateway(max_body_bytes=2048)
    response = gateway.http.post(
        path, content=(b"x" * 500 for _ in range(10)), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert gateway.error(response)["code"] == "request_too_large"


def test_engine_away_is_503_inside_the_sdks_retry_window(gateway: Gateway) -> None:
    gateway.engine.state = EngineState.STARTING
    response = gateway.http.post(CHAT, json={"model": "base", "messages": []})
    assert response.status_code == 503
    assert gateway.error(response)["code"] == "engine_unavailable"
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert gateway.http.get("/readyz").status_code == 503
    assert gateway.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("status", "sent", "expected"),
    [
        (
            400,
            {"error": {"message": "m", "type": "BadRequestError", "param": "p", "code": 400}},
            (400, "invalid_request_error", "p", None),
        ),
        (
            404,
            {"error": {"message": "m", "type": "NotFoundError", "param": None, "code": 404}},
            (404, "invalid_request_error", "model", "model_not_found"),
        ),
        (422, {"detail": "m"}, (400, "invalid_request_error", None, None)),
        (
            500,
            {"error": {"message": "m", "type": "InternalServerError", "param": None, "code": 500}},
            (500, "server_error", None, None),
        ),
    ],
)
def test_engines_errors_are_translated(
    start_gateway: StartGateway, status: int, sent: object, expected: tuple[object, ...]
) -> None:
    gateway = start_gateway(lambda _body: FakeAnswer(json.dumps(sent).encode(), status=status))
    response = gateway.http.post(CHAT, json={"model": "base", "messages": []})
    error = gateway.error(response)
    assert (response.status_code, error["type"], error["param"], error["code"]) == expected
    assert "m" in error["message"]


def test_stream_cut_by_the_engine_ends_in_an_error_event(start_gateway: StartGateway) -> None:
    cut = EngineUnavailableError("The engine died.", retry_after_s=2)
    gateway = start_gateway(lambda body: streamed(body["model"], "one", end=cut))
    response = gateway.http.post(CHAT, json={"model": "base", "messages": [], "stream": True})
    assert response.status_code == 200
    last = response.text.strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_unavailable"


@pytest.mark.parametrize(
    ("chunks", "passed_on"),
    [
        ((b"data: 1\n\nda",), b"data: 1\n\n"),
        ((b"data: 1\n\n", b"data: 2\n"), b"data: 1\n\n"),
        ((b"data: 1\n", b"\ndata: {", b'"2": '), b"data: 1\n\n"),
        ((b"event: a\r\ndata: 1\r\n\r", b"\ndata: 2\r\n"), b"event: a\r\ndata: 1\r\n\r\n"),
        ((b"data: {",), b""),
    ],
)
def test_half_an_event_before_the_cut_does_not_swallow_the_error_event(
    start_gateway: StartGateway, chunks: tuple[bytes, ...], passed_on: bytes
) -> None:
    cut = EngineUnavailableError("The engine died.", retry_after_s=2)
    gateway = start_gateway(lambda _body: FakeAnswer(*chunks, cut, content_type="text/event-stream"))
    response = gateway.http.post(CHAT, json={"model": "base", "messages": [], "stream": True})
    assert response.content.startswith(passed_on + b"data: {")
    assert json.loads(response.content.removeprefix(passed_on + b"data: "))["error"]["code"] == "engine_unavailable"


def test_a_stream_passes_through_to_its_last_byte_however_it_is_cut_up(start_gateway: StartGateway) -> None:
    sent = b"data: 1\n\n: a comment\n\nevent: two\ndata: 2\n\ndata: [DONE]\n\nand what no blank line ends"
    for size in (1, 2, 3, 7, len(sent)):
        chunks = [sent[place : place + size] for place in range(0, len(sent), size)]
        answer = FakeAnswer(*chunks, content_type="text/event-stream")
        gateway = start_gateway(lambda _body, answer=answer: answer)
        assert gateway.http.post(CHAT, json={"model": "base", "messages": []}).content == sent


def test_unforeseen_failure_is_500_without_its_innards(start_gateway: StartGateway) -> None:
    def broken(_body: object) -> FakeAnswer:
        raise RuntimeError("the secret innards")

    gateway = start_gateway(broken)
    response = gateway.http.post(CHAT, json={"model": "base", "messages": []})
    assert response.status_code == 500
    error = gateway.error(response)
    assert "innards" not in response.text
    assert response.headers["x-request-id"] in error["message"]


def test_every_answer_has_a_request_id(gateway: Gateway) -> None:
    for response in (gateway.http.get("/v1/models"), gateway.http.get("/v1/nothing"), gateway.http.post(CHAT)):
        assert response.headers["x-request-id"].startswith("req_")
    assert gateway.http.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"


def test_caller_who_leaves_stops_the_engines_work(start_gateway: StartGateway) -> None:
    import asyncio
    import time

    class Endless(FakeAnswer):
        async def chunks(self):  # type: ignore[no-untyped-def]
            while True:
                yield b"data: {}\n\n"
                await asyncio.sleep(0.02)

    gateway = start_gateway(lambda _body: Endless(content_type="text/event-stream"))
    address = urlsplit(gateway.url)
    body = b'{"model": "base", "messages": [], "stream": true}'
    with socket.create_connection((address.hostname, address.port)) as caller:
        caller.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        assert b"200 OK" in caller.recv(1000)
        assert gateway.engine.closed == 0
    deadline = time.monotonic() + 5
    while gateway.engine.closed == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gateway.engine.closed == 1


def test_parameters_reach_the_engine_as_they_came(gateway: Gateway) -> None:
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": "hi"}],
        "an_option_of_tomorrow": {"deep": [1, None, "ü"]},
    }
    assert gateway.http.post(CHAT, json=body).status_code == 200
    assert gateway.engine.requests == [body]


def test_a_structure_that_the_engine_cannot_use_is_the_callers_to_mend(start_gateway: StartGateway) -> None:
    gateway = start_gateway(lambda body: FakeAnswer(b'{"error":{"message":"Internal server error"}}', status=500))
    body = {"model": "base", "messages": [], "response_format": {"type": "json_schema", "json_schema": {"$ref": "#"}}}
    answer = gateway.http.post("/v1/chat/completions", json=body)
    assert (answer.status_code, gateway.error(answer)["code"]) == (400, "invalid_value")


def test_a_body_too_deep_for_an_alias_is_a_400(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    assert gateway.http.put("/v1/aliases/support", json={"model": "base"}).status_code == 201
    deep = b'{"model": "support", "messages": [], "x": ' + b"[" * 1005 + b"]" * 1005 + b"}"
    answer = gateway.http.post("/v1/chat/completions", content=deep)
    assert (answer.status_code, gateway.error(answer)["code"]) == (400, "invalid_json")
