"""A server that wants a key: the page asks for it, keeps it for the tab, and never puts it into an address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.ui.running import running
from ui import mount

pytestmark = pytest.mark.browser

KEY = "sk-tuneloop-only-for-this-test"


def keyed_app(url: str) -> FastAPI:
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            error: dict[str, Any] = {"message": "no", "type": "authentication_error", "code": "invalid_api_key"}
            return JSONResponse({"error": error}, 401)
        return JSONResponse({"data": [{"id": "base"}]})

    return mount(app, url)


@pytest.fixture(scope="module")
def keyed_url() -> Iterator[str]:
    with running(keyed_app) as url:
        yield url


def give_key(page: Page, key: str) -> None:
    page.locator("#tl-api-key input").fill(key)
    page.locator("#tl-use-key").click()


def test_the_key_is_asked_for_kept_for_the_tab_and_stays_out_of_addresses(keyed_url: str, open_page: OpenPage) -> None:
    page = open_page(keyed_url)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    expect(page.locator("#tl-api-key")).to_be_visible()
    give_key(page, "sk-wrong")
    expect(page.locator(".tl-problem")).to_contain_text("missing or invalid")
    give_key(page, KEY)
    expect(page.locator("#tl-api-key")).to_be_hidden()
    expect(page.locator("#tl-model-a input")).to_have_value("base")

    page.reload()
    expect(page.locator("#tl-model-a input")).to_have_value("base")
    expect(page.locator("#tl-api-key")).to_be_hidden()
    assert addresses
    assert not any(KEY in address for address in addresses)


def test_another_user_has_to_give_a_key_too(keyed_url: str, open_page: OpenPage) -> None:
    first, second = open_page(keyed_url), open_page(keyed_url)
    give_key(first, KEY)
    expect(first.locator("#tl-model-a input")).to_have_value("base")
    second.reload()
    expect(second.locator("#tl-api-key")).to_be_visible()
    expect(second.locator("#tl-model-a input")).to_have_value("")


def test_a_server_with_only_its_base_says_how_to_get_a_tuned_model(keyed_url: str, open_page: OpenPage) -> None:
    page = open_page(keyed_url)
    give_key(page, KEY)
    expect(page.locator(".tl-empty-state")).to_contain_text("tuneloop train CONFIG.yaml")
