"""The real Chromium, and the compare page open in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

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
    """One Chromium for all browser tests; each page gets a context of its own."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    """The pages, for one gateway after another."""
    with lone_pages() as pages:
        yield pages


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """`open_page(url, locale=…, color_scheme=…)`: a fresh user's tab. No tab may ask any other host for anything."""
    strangers: list[str] = []
    contexts = []

    def open_(url: str, **settings: object) -> Page:
        origin = "/".join(url.split("/")[:3])

        def note(request: Request) -> None:
            if not request.url.startswith((origin, "data:", "blob:")):
                strangers.append(request.url)

        context = browser.new_context(**({"locale": "en-US"} | settings))  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(ACTION_TIMEOUT_MS)
        context.on("request", note)
        page = context.new_page()
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
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
