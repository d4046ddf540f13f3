"""The frame of all pages: links, language, theme, a phone's width, and what screen readers find."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import FindFaults, OpenPage
from tests.browser.scripted import Script, scripted_app
from tests.ui.running import running
from ui.frame.style import title
from ui.html.elements import PAGES

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(lambda url: scripted_app(Script(), url)) as address:
        yield address


def test_each_page_has_an_address_and_marks_its_own_link(url: str, open_page: OpenPage) -> None:
    page = open_page(url)
    for name in PAGES:
        page.locator(".tl-nav a").nth(PAGES.index(name)).click()
        expect(page.locator(".tl-nav a[aria-current=page]")).to_have_count(1)
        expect(page.locator(f".tl-page-{name}")).to_be_visible()
        assert page.url.removeprefix(url).strip("/") == ("" if name == PAGES[0] else name)
        expect(page).to_have_title(title(name, "en"))


def test_language_and_theme_hold_on_every_page(url: str, open_page: OpenPage) -> None:
    page = open_page(url, color_scheme="light")
    page.get_by_text("中文", exact=True).click()
    expect(page.locator(".tl-nav a[aria-current]")).to_have_text("对比")
    expect(page).to_have_title(title("compare", "zh"))
    page.get_by_role("button", name="切换主题").click()
    page.goto(f"{url}/rate")
    expect(page).to_have_title(title("rate", "zh"))
    expect(page.locator(".tl-nav a[aria-current]")).to_have_text("评分")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.locator("body")).to_have_class("dark")


def test_a_language_chosen_while_the_page_opens_stays(url: str, open_page: OpenPage) -> None:
    page = open_page(f"{url}/healthz")  # of the same server, and asks for nothing more
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/queue/join*", hold_the_first)
    with page.expect_request("**/queue/join*"):  # else a fast click would be the first, and held
        page.goto(url)
    page.get_by_text("中文", exact=True).click()
    expect(page.locator(".tl-nav a[aria-current]")).to_have_text("对比")
    held[0].continue_()
    expect(page.locator(".tl-opening")).to_have_count(0)
    expect(page.locator("#tl-language input[value=zh]")).to_be_checked()
    expect(page.locator(".tl-nav a[aria-current]")).to_have_text("对比")


def test_an_invitation_hides_the_way_to_other_pages(url: str, open_page: OpenPage) -> None:
    page = open_page(f"{url}/rate?invite=tl-invite-x")
    expect(page.locator(".tl-name")).to_be_visible()
    expect(page.locator(".tl-nav")).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_frame_has_no_serious_fault_for_assistive_technology(
    url: str, open_page: OpenPage, axe: FindFaults, theme: str
) -> None:
    page = open_page(f"{url}/rate", color_scheme=theme)
    expect(page.locator(".tl-nav a[aria-current]")).to_be_visible()
    assert axe(page) == []


def test_the_links_fit_a_phone(url: str, open_page: OpenPage) -> None:
    page = open_page(f"{url}/keys", viewport={"width": 390, "height": 844})
    expect(page.locator(".tl-nav a[aria-current]")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
