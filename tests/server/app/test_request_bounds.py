"""What a request may have before anybody reads it: its head, its body, its JSON's shape. And what is said of it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from server.app import http_protocol
from server.app.http_protocol import MAX_FIELDS, MAX_HEAD_BYTES, MAX_URL_BYTES
from server.app.middleware.json_bounds import ENGINE_MAX_ITEMS, MAX_ENTRIES, MAX_ITEMS
from server.app.middleware.responses_input import MAX_WEIGHT
from tests.server.conftest import Gateway, StartGateway

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
MESSAGE = {"role": "user", "content": "hi"}
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@contextmanager
def connected(gateway: Gateway) -> Iterator[socket.socket]:
    address = urlsplit(gateway.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as connection:
        yield connection


def exchange(gateway: Gateway, *sent: bytes) -> bytes:
    """All that came back until the server ended the connection."""
    with connected(gateway) as connection:
        for part in sent:
            try:
                connection.sendall(part)
            except OSError:  # it was refused meanwhile
                break
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    came = b""
    while part := connection.recv(65536):
        came += part
    return came


def refusal(answer: bytes) -> tuple[int, str]:
    """Status and code of a refusal, whose envelope is whole and after which nothing came."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert b"\r\nx-request-id: req_" in head
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error["code"]


def fields(count: int) -> bytes:
    return b"".join(b"x-%d: 1\r\n" % number for number in range(count))


def test_a_head_out_of_bounds_is_refused_and_ends_the_connection(gateway: Gateway) -> None:
    too_large, too_long, no_http = (431, "headers_too_large"), (414, "uri_too_long"), (400, "invalid_http")
    for expected, *sent in (
        (too_large, HEALTH + b"X: ", b"a" * (3 * MAX_HEAD_BYTES)),
        (too_large, HEALTH + b"X: ", *[b"a" * 2000] * 100),
        (too_large, HEALTH + b"a" * 200_000),  # a name without an end
        (too_large, HEALTH + fields(MAX_FIELDS) + b"\r\n"),  # and Host
        (too_large, HEALTH + fields(100_000) + b"\r\n"),
        (too_large, b"\r\n" * 100_000),
        (too_large, HEALTH + b"Upgrade: websocket\r\nConnection: Upgrade\r\nX: ", b"a" * 200_000),
        (too_long, b"GET /" + b"a" * MAX_URL_BYTES + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (too_long, b"GET /", *[b"a" * 5000] * 50),
        (no_http, b"nonsense\r\n\r\n"),
    ):
        assert refusal(exchange(gateway, *sent)) == expected, sent[0][-40:]
    assert gateway.http.get("/healthz").status_code == 200


def test_what_comes_beside_a_chunked_body_is_bounded(gateway: Gateway) -> None:
    head = b"POST /v1/comparisons HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
    for trailer in (b"0\r\nX: " + b"a" * 200_000, b"0\r\n" + fields(MAX_FIELDS + 2), b"2;" + b"a" * 200_000):
        assert refusal(exchange(gateway, head, trailer)) == (431, "headers_too_large"), trailer[:10]


def test_a_trailer_is_no_header(gateway: Gateway) -> None:
    head = (
        b"POST /v1/comparisons HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = exchange(gateway, head + b"2\r\n{}\r\n0\r\nX-Request-Id: smuggled\r\n\r\n")
    assert b" 400 " in answer
    assert b"smuggled" not in answer


def test_a_second_head_on_a_connection_is_bounded_too(gateway: Gateway) -> None:
    with connected(gateway) as connection:
        connection.sendall(HEALTH + b"\r\n")
        assert b"200 OK" in connection.recv(4096)
        connection.sendall(HEALTH + b"X: " + b"a" * 200_000)
        assert refusal(read_all(connection))[0] == 431


def test_a_head_within_bounds_passes_in_pieces_too(gateway: Gateway) -> None:
    head = HEALTH + b"Connection: close\r\n" + fields(MAX_FIELDS - 10) + b"Y: " + b"a" * 50_000 + b"\r\n\r\n"
    assert b" 200 OK" in exchange(gateway, head)
    assert b" 200 OK" in exchange(gateway, *[head[at : at + 7000] for at in range(0, len(head), 7000)])
    url = b"/healthz?" + b"a" * (MAX_URL_BYTES - 20)
    assert b" 200 OK" in exchange(gateway, b"GET " + url + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


def test_a_body_of_many_pieces_is_no_head(gateway: Gateway) -> None:
    body = json.dumps({"model": "base", "messages": [{"role": "user", "content": "x" * 300_000}]}).encode()
    answer = gateway.http.post(CHAT, content=(body[at : at + 100] for at in range(0, len(body), 100)), headers=JSON)
    assert answer.status_code == 200
    assert gateway.http.post(CHAT, content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"h2c, websocket"])
def test_an_offered_upgrade_is_passed_over_and_the_request_answered(gateway: Gateway, protocol: bytes) -> None:
    body = json.dumps({"model": "base", "messages": [MESSAGE]}).encode()
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nupgrade: %b\r\n"
    with connected(gateway) as connection:
        for _ in range(2):
            connection.sendall(head % (CHAT.encode(), protocol) + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert len(gateway.engine.requests) == 2
        gateway.stop()  # in order, though the connection is open


def test_trailers_out_of_bounds_are_refused(gateway: Gateway) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % CHAT.encode()
    sent = head + b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * (MAX_FIELDS + 1) + b"\r\n"
    assert refusal(exchange(gateway, sent)) == (431, "headers_too_large")


def test_a_head_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch, start_gateway: StartGateway) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.3)
    gateway = start_gateway()
    assert refusal(exchange(gateway, HEALTH)) == (408, "request_timeout")
    assert exchange(gateway) == b""  # nothing was asked, so nothing is said
    with connected(gateway) as connection:
        connection.sendall(HEALTH + b"\r\n")
        assert b"200 OK" in connection.recv(4096)
        connection.sendall(HEALTH)
        assert refusal(read_all(connection)) == (408, "request_timeout")


def test_a_body_that_stops_coming_is_given_up_and_a_slow_one_is_not(
    monkeypatch: pytest.MonkeyPatch, start_gateway: StartGateway
) -> None:
    monkeypatch.setattr(http_protocol, "BODY_TIMEOUT_S", 1.0)
    gateway = start_gateway()
    body = json.dumps({"model": "base", "messages": [MESSAGE]}).encode()
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body))
    assert refusal(exchange(gateway, head + body[:-1])) == (408, "request_timeout")
    with connected(gateway) as connection:
        connection.sendall(head)
        for start in range(0, len(body), 5):  # longer than that in all, and far shorter between two pieces
            time.sleep(0.15)
            connection.sendall(body[start : start + 5])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        time.sleep(1.1)  # the body has come: its answer may take as long as it likes
        connection.sendall(HEALTH + b"\r\n")
        assert b"200 OK" in read_until(connection, b'"ok"}')


def read_until(connection: socket.socket, end: bytes) -> bytes:
    came = b""
    while not came.rstrip().endswith(end) and (part := connection.recv(65536)):
        came += part
    return came


def test_a_body_for_the_pages_has_a_cap_also_without_a_key(gateway: Gateway) -> None:
    gateway.http.post("/v1/keys", json={"name": "first"})
    parts = [b'{"data":["', *[b"a" * 2**19] * 5]
    for path in ("/gradio_api/queue/join", "/gradio_api/run/predict", "/login", "/anything/at/all"):
        for body in (b"".join(parts), iter(parts)):  # announced, and not
            response = gateway.http.post(path, content=body, headers=JSON)
            assert (response.status_code, gateway.error(response)["code"]) == (413, "request_too_large"), path


def test_an_event_with_a_long_prompt_passes_to_the_pages(gateway: Gateway) -> None:
    body = json.dumps({"data": ["é" * 200_000], "fn_index": 0, "session_hash": "x"})
    assert gateway.http.post("/gradio_api/queue/join", content=body, headers=JSON).status_code == 404  # no pages here


def test_a_list_too_long_is_refused_by_its_name_before_the_engine_sees_it(gateway: Gateway) -> None:
    one_too_many = MAX_ENTRIES + 1
    for path, param, body in (
        (CHAT, "messages", {"messages": [{}] * one_too_many}),
        (CHAT, "messages", {"messages": [{}] * 500_001}),
        (CHAT, "messages", {"messages": [1] * one_too_many}),
        (CHAT, "messages[1].content", {"messages": [MESSAGE, {"role": "user", "content": [{}] * one_too_many}]}),
        (CHAT, "tools", {"messages": [MESSAGE], "tools": [{}] * one_too_many}),
        (CHAT, "stop", {"messages": [MESSAGE], "stop": ["a"] * one_too_many}),
        ("/v1/completions", "prompt", {"prompt": [*[1] * one_too_many, "x"]}),
        ("/v1/completions", "prompt", {"prompt": [-1] * one_too_many}),
        ("/v1/completions", "prompt", {"prompt": [True] * one_too_many}),
        ("/v1/completions", "prompt", {"prompt": [[1]] * one_too_many}),
        ("/v1/responses", "tools", {"input": "a", "tools": [1] * one_too_many}),
        ("/v1/embeddings", "input", {"input": ["a"] * one_too_many}),
        ("/v1/comparisons", "messages", {"messages": [1] * 500_001}),
        ("/v1/campaigns", "prompts", {"prompts": ["a"] * one_too_many}),
        ("/v1/uploads/upload_1/complete", "part_ids", {"part_ids": [""] * one_too_many}),
        ("/gradio_api/queue/join", "data", {"data": [1] * one_too_many}),
    ):
        response = gateway.http.post(path, content=json.dumps({"model": "base", **body}), headers=JSON)
        error = gateway.error(response)
        assert (response.status_code, error["param"], error["code"]) == (400, param, "array_above_max_length"), path
        assert f"the maximum of {MAX_ENTRIES}" in error["message"]
    assert gateway.engine.requests == []


def test_too_much_in_all_is_refused(gateway: Gateway) -> None:
    too_many = "array_above_max_length"
    for path, code, body in (
        (CHAT, "object_above_max_properties", {"logit_bias": {str(number): 1 for number in range(MAX_ENTRIES + 1)}}),
        (CHAT, too_many, {"messages": [{"content": [{}] * 9}] * (ENGINE_MAX_ITEMS // 9)}),
        ("/v1/comparisons", too_many, {"histories": [[1] * 2000] * (MAX_ITEMS // 2000 + 1)}),
        ("/v1/campaigns", too_many, {f"k{number}": {"a": 1} for number in range(70_000)}),
        ("/v1/responses", too_many, {"input": [{}] * (MAX_WEIGHT + 1)}),
        ("/v1/responses", too_many, {"input": [{"role": "user", "content": [{}] * MAX_WEIGHT}]}),
        *(
            ("/v1/responses", too_many, {"input": [{**MESSAGE, **wrong}] * (MAX_WEIGHT + 1)})
            for wrong in ({"status": 1}, {"status": []}, {"phase": 1}, {"role": {}}, {"type": ["message"]}, {"id": 1})
        ),
    ):
        response = gateway.http.post(path, content=json.dumps({"model": "base", **body}), headers=JSON)
        assert (response.status_code, gateway.error(response)["code"]) == (400, code), path
    assert gateway.engine.requests == []


def test_what_is_really_sent_passes(gateway: Gateway) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "n", "arguments": "{}"}}
    turn = [
        {"role": "assistant", "content": [{"type": "text", "text": "a, {b}"}], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": 'a "quoted" \\ text, [1,2]' * 20},
    ]
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string", "enum": ["a", "b"]} for n in range(9)}}
    steps = [
        MESSAGE,
        {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}", "id": "f", "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": "o"},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {
            **{"type": "message", "id": "m", "status": "completed", "role": "assistant"},
            "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": None}],
        },
    ]
    for path, body in (
        (CHAT, {"messages": turn * 900}),
        (CHAT, {"messages": [MESSAGE] * MAX_ENTRIES}),
        (CHAT, {"messages": [{"role": "user", "content": '{},"' * 500_000}]}),
        (CHAT, {"tools": [{"type": "function", "function": {"name": "n", "parameters": schema}}] * 128}),
        (CHAT, {"logit_bias": {str(number): 1 for number in range(1024)}, "allowed_token_ids": [*range(50_000)]}),
        ("/v1/completions", {"prompt": [[*range(2000)]] * 200}),
        ("/v1/completions", {"prompt": [*range(400_000)]}),
        ("/v1/embeddings", {"input": ["a"] * MAX_ENTRIES}),
        ("/v1/responses", {"input": steps * 300}),
        ("/v1/responses", {"input": [{"type": "of tomorrow"}] * MAX_WEIGHT}),
    ):
        response = gateway.http.post(path, content=json.dumps({"model": "base", **body}), headers=JSON)
        assert response.status_code == 200, (path, response.text[:200])


def test_json_too_deep_or_with_endless_numbers_is_invalid_json_everywhere(gateway: Gateway) -> None:
    own = ("campaigns", "comparisons", "keys", "uploads", "fine_tuning/jobs", "webhook_endpoints")
    values = (b"[" * 5000 + b"]" * 5000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"1" * 5000, b"[" * 700 + b"]" * 700)
    for path in (CHAT, *(f"/v1/{name}" for name in own), "/gradio_api/run/x"):
        for value in (*values, b"1" * 4000 + b".5"):
            response = gateway.http.post(path, content=b'{"model": "base", "n": ' + value + b"}", headers=JSON)
            assert (response.status_code, gateway.error(response)["code"]) == (400, "invalid_json"), path


def test_integers_of_more_than_64_bits_are_refused_where_an_engine_would_read_them(gateway: Gateway) -> None:
    for given in ('"top_k": 18446744073709551616', '"seed": -9223372036854775809', f'"n": [{"9" * 30}]'):
        answer = gateway.http.post(CHAT, content=f'{{"model": "base", {given}, "messages": []}}', headers=JSON)
        assert (answer.status_code, gateway.error(answer)["code"]) == (400, "invalid_value"), given
    long = '"seed": 18446744073709551615, "top_p": 0.10000000000000000555, "x": 1e30, "y": "99999999999999999999999"'
    assert gateway.http.post(CHAT, content=f'{{"model": "base", {long}, "messages": []}}', headers=JSON).is_success


def test_json_that_could_not_be_counted_is_refused(gateway: Gateway) -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        body = json.dumps({"model": "base", "x": '"', "messages": [{}] * 5000}).encode(encoding)
        assert gateway.error(gateway.http.post(CHAT, content=body))["code"] == "invalid_json"
    assert gateway.engine.requests == []


def test_no_way_of_writing_text_hides_a_list(gateway: Gateway) -> None:
    for text in (rb"\"", rb"\\", rb"\\\"", rb"\\\\", rb"\u0022", rb"\\\u005c", "é“".encode(), b",{["):
        body = b'{"model":"base","' + text + b'":"' + text + b'","messages":[' + b"{}," * 3000 + b"{}]}"
        json.loads(body)
        assert gateway.error(gateway.http.post(CHAT, content=body))["param"] == "messages"


def test_an_error_answer_stays_short(gateway: Gateway) -> None:
    job = {"model": "m", "training_file": "f"}
    for path, body in (
        ("/v1/comparisons", {"messages": [1] * MAX_ENTRIES}),
        ("/v1/comparisons", {f"{'k' * 3000}{number}": 1 for number in range(1000)}),
        ("/v1/campaigns", {"name": "x" * 4_000_000, "models": ["x" * 1_000_000] * 3}),
        ("/v1/fine_tuning/jobs", {**job, "tuneloop": {"k" * 4_000_000: 1}}),
        ("/v1/fine_tuning/jobs", {**job, **{f"k{number}": 1 for number in range(2000)}}),
        (CHAT, {"model": "x" * 4_000_000}),
    ):
        response = gateway.http.post(path, json=body)
        assert 400 <= response.status_code < 500
        assert len(response.content) < 10_000, path


def test_of_many_faults_the_first_are_told_and_the_rest_counted(gateway: Gateway) -> None:
    error = gateway.error(gateway.http.post("/v1/comparisons", json={"messages": [1] * 100}))
    assert error["message"].count("Input should be a valid dictionary") == 8
    assert error["message"].endswith("; and 92 more.")
    assert (error["param"], error["code"]) == ("messages.0", "invalid_type")


def test_bodies_at_the_bounds_hold_nobody_up(gateway: Gateway) -> None:
    for path, body in (
        ("/v1/comparisons", b'{"messages":[' + b"1," * 4_000_000 + b"1]}"),
        ("/v1/comparisons", json.dumps({"histories": [[1] * 2000] * 8}).encode()),
        (CHAT, b'{"messages":[' + b'"",' * 2_000_000 + b'""]}'),
    ):
        started = time.process_time()
        assert gateway.http.post(path, content=body, headers=JSON).status_code == 400
        assert time.process_time() - started < 1.5  # server and client, in this process
