"""The real Chromium, and the compare page open in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from tests.browser.paged_gateway import Pages, lone_pages
from tests.browser.scripted_arena import served_arena as served_arena  # a fixture of several modules
from tests.conftest import CHROMIUM

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ACTION_TIMEOUT_MS = 60_000
expect.set_options(timeout=60_000)  # a busy machine draws slowly, and what reads files is a process that starts slowly
OpenPage = Callable[..., Page]
FindFaults = Callable[[Page], list[str]]


# Not for the whole session: while Playwright is open its event loop runs, and no other test could use asyncio.run.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium for all browser tests."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


class Contexts:
    """Contexts by their settings, lent to one test after another, so that scripts are fetched and compiled once.

    What a visitor leaves in one is gone before the next has it.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._idle: dict[str, list[BrowserContext]] = {}

    def take(self, settings: Mapping[str, Any]) -> BrowserContext:
        """One that nobody has now."""
        idle = self._idle.setdefault(json.dumps(settings, sort_keys=True), [])
        context = idle.pop() if idle else self._browser.new_context(**settings)
        context.set_default_timeout(ACTION_TIMEOUT_MS)
        return context

    def give_back(self, settings: Mapping[str, Any], context: BrowserContext) -> None:
        """Closes its pages; what a tab keeps goes with it."""
        for page in context.pages:
            page.evaluate("localStorage.clear()")
            page.close(run_before_unload=False)
        context.clear_cookies()
        self._idle[json.dumps(settings, sort_keys=True)].append(context)


@pytest.fixture(scope="package")
def contexts(browser: Browser) -> Contexts:
    """The contexts of the one Chromium."""
    return Contexts(browser)


@pytest.fixture(scope="session")
def pages() -> Iterator[Pages]:
    """The pages, for one gateway after another."""
    with lone_pages() as pages:
        yield pages


@pytest.fixture
def open_page(contexts: Contexts) -> Iterator[OpenPage]:
    """`open_page(url, locale=…, color_scheme=…)`: a fresh user's tab. No tab may ask any other host for anything."""
    strangers: list[str] = []
    taken = []

    def open_(url: str, **settings: object) -> Page:
        origin = "/".join(url.split("/")[:3])

        def note(request: Request) -> None:
            if not request.url.startswith((origin, "data:", "blob:")):
                strangers.append(request.url)

        settings = {"locale": "en-US"} | settings
        context = contexts.take(settings)
        context.on("request", note)
        taken.append((settings, context, note))
        page = context.new_page()
        page.goto(url)
        return page

    yield open_
    for settings, context, note in taken:
        context.remove_listener("request", note)
        contexts.give_back(settings, context)
    assert strangers == []


@pytest.fixture
def screenshot() -> Callable[[Page, str], None]:
    """`screenshot(page, name)` keeps a picture in the folder $TUNELOOP_SCREENSHOTS, when that is set."""
    folder = os.environ.get("TUNELOOP_SCREENSHOTS")

    def keep(page: Page, name: str) -> None:
        if folder:
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return keep


@pytest.fixture
def axe() -> FindFaults:
    """`axe(page)`: axe-core's serious and critical findings on the page as it stands, contrast of text included."""

    def find(page: Page) -> list[str]:
        # axe sees a colour that is still fading as it stands at that moment.
        page.add_style_tag(
            content="*, *::before, *::after { transition: none !important; animation: none !important; }"
        )
        violations = Axe().run(page).response["violations"]
        return [
            f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
            for violation in violations
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]

    return find
