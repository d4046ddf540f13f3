"""The Compare page where what the server says, or that an act has ended, comes late."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from gradio.queueing import Event, Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage
from playwright.sync_api import Page, Route, expect

from tests.browser.compare_steps import expect_done, opened, prompts, send
from tests.browser.compare_steps import script as script
from tests.browser.compare_steps import served as served
from tests.browser.compare_steps import url as url
from tests.browser.conftest import OpenPage
from tests.browser.scripted import Script

pytestmark = pytest.mark.browser
PATIENCE_MS = 30_000


@pytest.fixture
def late_ends(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Put in seconds, and Gradio tells by so much later that the next act has ended, as a busy machine does."""
    delays: list[float] = []
    send_message = Queue.send_message

    def send(queue: Queue, event: Event, message: EventMessage) -> None:
        if delays and isinstance(message, ProcessCompletedMessage) and event.fn.name in ("_send", "act"):
            asyncio.get_running_loop().call_later(delays.pop(0), send_message, queue, event, message)
        else:
            send_message(queue, event, message)

    monkeypatch.setattr(Queue, "send_message", send)
    return delays


@contextmanager
def held_up(page: Page) -> Iterator[None]:
    """What the server tells the page of its next acts is on its way until the end, as on a slow network."""
    held: list[Route] = []
    page.route("**/queue/data*", lambda route: held.append(route), times=1)
    yield
    assert held
    for route in held:
        route.continue_()


def test_a_prompt_sent_the_moment_an_answer_ends_is_asked(
    url: str, script: Script, open_page: OpenPage, late_ends: list[float]
) -> None:
    script.pause_s = 0.2
    page = opened(open_page, url)
    late_ends.append(1.0)
    send(page, "Hello?")
    expect(page.locator("#tl-stop")).to_be_visible()
    page.locator("#tl-prompt textarea").fill("And then?")
    expect_done(page)
    page.locator("#tl-prompt textarea").press("Enter")
    expect_done(page, 4)
    assert prompts(page) == ["Hello?", "And then?"]


def test_a_prompt_sent_twice_on_a_slow_network_is_asked_once(url: str, script: Script, open_page: OpenPage) -> None:
    page = opened(open_page, url)
    with held_up(page):
        send(page, "Hello?")
        page.wait_for_timeout(2_000)
        assert len(script.bodies) == 1
        expect(page.locator("#tl-prompt textarea")).to_have_value("Hello?")
        page.locator("#tl-prompt textarea").press("Enter")
        page.wait_for_timeout(500)
    expect_done(page)
    page.wait_for_timeout(500)
    assert prompts(page) == ["Hello?"]
    assert len(script.bodies) == 1


def test_what_is_typed_while_a_prompt_is_on_its_way_stays(url: str, open_page: OpenPage) -> None:
    page = opened(open_page, url)
    with held_up(page):
        send(page, "Hello?")
        page.wait_for_timeout(500)
        page.locator("#tl-prompt textarea").fill("And then?")
    expect_done(page)
    expect(page.locator("#tl-prompt textarea")).to_have_value("And then?")
    page.locator("#tl-prompt textarea").press("Enter")
    expect_done(page, 4)
    expect(page.locator("#tl-prompt textarea")).to_have_value("")


def test_regenerate_clicked_twice_on_a_slow_network_asks_once(url: str, script: Script, open_page: OpenPage) -> None:
    page = opened(open_page, url)
    send(page, "Hello?")
    expect_done(page)
    page.wait_for_timeout(500)
    with held_up(page):
        for _ in range(2):
            page.get_by_role("button", name="Regenerate").click()
            page.wait_for_timeout(2_000)
        assert len(script.bodies) == 2
    expect_done(page)


def test_an_action_whose_end_comes_late_takes_nothing_back(
    url: str, open_page: OpenPage, late_ends: list[float]
) -> None:
    page = opened(open_page, url)
    send(page, "Hello?")
    expect_done(page)
    page.wait_for_timeout(500)  # the question's own end
    late_ends.append(3.0)
    page.get_by_role("button", name="Highlight differences").click()
    expect(page.get_by_role("button", name="Highlight differences")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Edit").click()
    expect(page.locator(".compare-editing")).to_be_visible()
    page.wait_for_timeout(3_500)  # for what would take it back
    expect(page.locator(".compare-editing")).to_be_visible()
