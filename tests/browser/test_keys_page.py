"""The page of keys and settings in a real browser, over the real gateway: made, shown once, kept, revoked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import FindFaults, OpenPage
from tests.browser.paged_gateway import Pages, paged_gateway
from tests.server.conftest import Gateway

pytestmark = pytest.mark.browser

Screenshot = Callable[[Page, str], None]
HOSTILE = "<img src=x onerror=\"document.title='broken in'\">"


@pytest.fixture
def gateway(tmp_path: Path, pages: Pages) -> Iterator[Gateway]:
    """A gateway without keys, one of its settings changed."""
    with paged_gateway(tmp_path, pages, requests_per_minute=6000) as gateway:
        yield gateway


def make_first(page: Page, name: str = "laptop") -> str:
    page.locator("#keys-name").fill(name)
    page.locator("#keys-create").click()
    return page.locator("#keys-secret").inner_text()


def use_key(page: Page, key: str) -> None:
    page.locator("#tl-api-key input").fill(key)
    page.locator("#tl-use-key").click()


def listed(gateway: Gateway, key: str) -> list[dict[str, Any]]:
    answer = gateway.http.get("/v1/keys", headers={"Authorization": f"Bearer {key}"})
    keys: list[dict[str, Any]] = answer.json()["data"]
    return keys


def test_the_first_key_is_shown_once_and_the_tab_uses_it_from_then_on(
    gateway: Gateway, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    page = open_page(f"{gateway.url}/keys")
    expect(page.locator(".tl-notice")).to_contain_text("No API keys yet")
    assert axe(page) == []
    key = make_first(page)
    assert key.startswith("sk-tuneloop-")
    assert gateway.http.get("/v1/models").status_code == 401
    expect(page.locator(".keys-fresh")).to_contain_text("Every request now needs a key")
    expect(page.locator(".keys-table").first.locator("tbody tr")).to_have_count(1)
    expect(page.locator("#keys-name")).to_have_value("")
    expect(page.locator(".keys-sign").last).to_have_text("This tab")
    page.locator("#keys-copy").click()
    expect(page.locator("#keys-copy")).to_have_text("✓ Copied")
    assert axe(page) == []
    screenshot(page, "keys-en-light")
    page.reload()
    expect(page.locator(".keys-table").first.locator("tbody tr")).to_have_count(1)
    assert key not in page.content()
    page.goto(f"{gateway.url}/models")
    expect(page.locator(".models-node")).to_have_count(1)


def test_a_later_key_is_made_used_and_revoked(gateway: Gateway, open_page: OpenPage) -> None:
    page = open_page(f"{gateway.url}/keys")
    admin = make_first(page)
    page.locator("#keys-name").fill(HOSTILE)
    page.locator("#keys-project").fill("search")
    page.locator("#keys-create").click()
    expect(page.locator(".keys-fresh")).to_contain_text(HOSTILE)
    plain = page.locator("#keys-secret").inner_text()
    assert plain != admin
    bearer = {"Authorization": f"Bearer {plain}"}
    assert gateway.http.get("/v1/models", headers=bearer).status_code == 200
    page.locator("#keys-put-away").click()
    expect(page.locator(".keys-fresh")).to_have_count(0)
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator(f"#revoke-{next(one['id'] for one in listed(gateway, admin) if not one['is_admin'])}").click()
    expect(page.locator(".keys-done")).to_contain_text("revoked")
    expect(page.get_by_text("revoked 20")).to_have_count(1)
    assert gateway.http.get("/v1/models", headers=bearer).status_code == 401
    assert page.title() == "Keys and settings · tuneloop"
    assert page.locator(".keys-table img").count() == 0


def test_the_last_admins_key_goes_only_after_a_second_question(gateway: Gateway, open_page: OpenPage) -> None:
    page = open_page(f"{gateway.url}/keys")
    admin = make_first(page)
    (only,) = listed(gateway, admin)
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator(f"#revoke-{only['id']}").click()
    expect(page.locator(".tl-problem")).to_contain_text("tuneloop keys create --admin")
    assert listed(gateway, admin)[0]["revoked_at"] is None
    page.locator("#keys-force").click()
    expect(page.locator("#tl-api-key")).to_be_visible()
    assert gateway.http.get("/v1/keys", headers={"Authorization": f"Bearer {admin}"}).status_code == 401


def test_a_plain_key_and_a_wrong_one_are_told_what_is_wanted(gateway: Gateway, open_page: OpenPage) -> None:
    admin = gateway.http.post("/v1/keys", json={"name": "admin"}).json()["key"]
    plain = gateway.http.post("/v1/keys", json={}, headers={"Authorization": f"Bearer {admin}"}).json()["key"]
    page = open_page(f"{gateway.url}/keys")
    for wrong, words in (("sk-tuneloop-wrong", "it is misspelled"), (plain, "requires an admin key")):
        use_key(page, wrong)
        expect(page.locator(".tl-problem")).to_contain_text(words)
        expect(page.locator(".keys-table")).to_have_count(0)
    use_key(page, admin)
    expect(page.locator(".keys-table").first.locator("tbody tr")).to_have_count(2)
    expect(page.locator("#tl-api-key")).to_be_hidden()
    expect(page.locator(".tl-problem")).to_have_count(0)


def test_settings_and_webhooks_are_told_in_both_languages(
    gateway: Gateway, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    hook = {"name": "ci", "url": "https://hooks.example/x", "event_types": ["fine_tuning.job.succeeded"]}
    gateway.http.post("/v1/webhook_endpoints", json=hook)
    page = open_page(f"{gateway.url}/keys", locale="zh-CN", color_scheme="dark")
    expect(page.locator("h1")).to_have_text("密钥与设置")
    row = page.locator("tr", has=page.get_by_text("requests_per_minute", exact=True))
    expect(row).to_contain_text("6000")
    expect(row).to_contain_text("flag")
    page.locator(".keys-rest summary").click()
    expect(page.locator("tr", has=page.get_by_text("engine_wait_s", exact=True))).to_be_visible()
    expect(page.locator(".keys-table").first).to_contain_text("fine_tuning.job.succeeded")
    assert axe(page) == []
    screenshot(page, "keys-zh-dark")
    page.get_by_text("English", exact=True).click()
    expect(page.locator("h1")).to_have_text("Keys and settings")


def test_a_server_that_is_down_is_told_and_the_page_fits_a_phone(
    tmp_path: Path, pages: Pages, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    page = open_page(f"{pages.url}/keys", viewport={"width": 390, "height": 844})
    expect(page.locator(".tl-problem")).to_contain_text("Can't reach tuneloop")
    with paged_gateway(tmp_path, pages):
        page.reload()
        make_first(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert axe(page) == []
        screenshot(page, "keys-phone")
