"""The Compare page on a server that a test scripts, and what a visitor does on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.scripted import BASE, Script, scripted_app
from tests.ui.running import running
from ui.pages.compare import layout

ANSWER_TIMEOUT_MS = 120_000


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest) -> Iterator[tuple[str, Script]]:
    """The one server of a module; a module's `POLL_INTERVAL_S` is how often its pages look for new models."""
    script, interval_s = Script(), getattr(request.module, "POLL_INTERVAL_S", layout.POLL_INTERVAL_S)

    def app(url: str) -> FastAPI:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layout, "POLL_INTERVAL_S", interval_s)
            return scripted_app(script, url, example_prompts=("Who wrote Hamlet?",))

    with running(app) as url:
        yield url, script


@pytest.fixture
def script(served: tuple[str, Script]) -> Script:
    """The one server's script, as if it were new."""
    vars(served[1]).update(vars(Script()))
    return served[1]


@pytest.fixture
def url(served: tuple[str, Script], script: Script) -> str:
    """The server's address; its script is fresh."""
    return served[0]


def opened(open_page: OpenPage, url: str, **settings: object) -> Page:
    page = open_page(url, **settings)
    expect(page.locator("#tl-model-a input")).to_have_value(BASE)
    return page


def send(page: Page, prompt: str) -> None:
    page.locator("#tl-prompt textarea").fill(prompt)
    page.locator("#tl-prompt textarea").press("Enter")


def expect_done(page: Page, answers: int = 2) -> None:
    expect(page.locator(".tl-pane.tl-done")).to_have_count(answers)
    expect(page.locator("#tl-send")).to_be_visible()


def answers(page: Page) -> list[str]:
    return [words.strip() for words in page.locator(".tl-answer").all_inner_texts()]


def prompts(page: Page) -> list[str]:
    return page.locator(".compare-words").all_inner_texts()
