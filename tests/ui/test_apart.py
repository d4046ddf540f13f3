"""The pages in a process of their own: the API is passed on, and strangers stay outside."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.testclient import TestClient

from server.app.data_dir import StartError
from server.cli.commands.ui import ui as ui_command
from tests.ui.running import running
from ui.apart import create_apart_app


def api(_url: str) -> FastAPI:
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> dict[str, list[str]]:
        return {"data": []}

    @app.api_route("/v1/echo/{name}", methods=["GET", "POST", "DELETE"])
    async def echo(name: str, request: Request) -> Response:
        told = {
            "name": name,
            "method": request.method,
            "query": str(request.url.query),
            "key": request.headers.get("authorization"),
            "body": (await request.body()).decode(),
        }
        return JSONResponse(told, 418, {"x-request-id": "req_1"})

    return app


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running(api) as url:
        yield url


@pytest.fixture(scope="module")
def pages(server: str) -> Iterator[TestClient]:
    app = create_apart_app(server, allowed_hosts=["testserver"])
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_request_is_passed_on_as_it_is_and_so_is_the_answer(pages: TestClient, method: str) -> None:
    content = b'{"a": "\xc3\xa9"}' if method == "POST" else None
    answer = pages.request(
        method, "/v1/echo/a%20b?limit=3&after=x", content=content, headers={"Authorization": "Bearer sk-1"}
    )
    assert (answer.status_code, answer.headers["x-request-id"]) == (418, "req_1")
    assert answer.json() == {
        "name": "a b", "method": method, "query": "limit=3&after=x", "key": "Bearer sk-1",
        "body": content.decode() if content else "",
    }  # fmt: skip


def test_the_pages_stand_beside_it(pages: TestClient) -> None:
    assert "tuneloop" in pages.get("/").text
    assert pages.get("/rate").status_code == 200


def test_a_foreign_host_name_is_refused(pages: TestClient) -> None:
    assert pages.get("/v1/models", headers={"Host": "evil.example"}).status_code == 400


def test_a_server_that_is_gone_is_told_in_openais_envelope(unused_url: str) -> None:
    with TestClient(create_apart_app(unused_url, allowed_hosts=["*"])) as client:
        answer = client.get("/v1/models")
    assert answer.status_code == 502
    assert json.loads(answer.text)["error"]["code"] == "server_unreachable"


def never_made(_server: str, _hosts: object) -> FastAPI:
    raise AssertionError("the pages must not start")


def test_pages_for_the_network_want_a_server_that_wants_a_key(server: str) -> None:
    with pytest.raises(StartError, match="keys create"):
        ui_command(server, "0.0.0.0", 0, never_made)


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://host", "http://host/v1", ""])
def test_a_server_without_a_proper_address_is_refused(address: str) -> None:
    with pytest.raises(StartError, match="--server"):
        ui_command(address, "127.0.0.1", 0, never_made)
