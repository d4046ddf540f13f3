"""The compare page in a real browser, against a real tuneloop with its engine."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.engine]

VOTES = ("left", "tie", "both-bad", "right")
ANSWER_TIMEOUT_MS = 120_000
HOSTILE = "<img src=x onerror=\"document.title='broken in'\">"
Screenshot = Callable[[Page, str], None]


class Tuneloop(Protocol):
    """What these tests need of the running server."""

    url: str
    base_model: str
    tuned_model: str


def ask(page: Page, prompt: str, *, blind: bool = True) -> None:
    page.locator("#tl-blind input").set_checked(blind)
    page.locator("#tl-prompt textarea").fill(prompt)
    page.locator("#tl-prompt textarea").press("Enter")


def wait_for_answers(page: Page) -> None:
    expect(page.locator(".tl-pane.tl-done")).to_have_count(2, timeout=ANSWER_TIMEOUT_MS)
    expect(page.locator("#tl-vote-left")).to_be_enabled()


def answers(page: Page) -> list[str]:
    return page.locator(".tl-answer").all_inner_texts()


def expect_no_vote_possible(page: Page) -> None:
    for vote in VOTES:
        expect(page.locator(f"#tl-vote-{vote}")).to_be_disabled()


def newest_rating(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/v1/ratings?limit=1&order=desc", timeout=10) as answer:
        ratings: list[dict[str, Any]] = json.load(answer)["data"]
    return ratings[0]


def test_a_blind_vote_is_stored_with_its_context_and_reveals_the_names(
    tuneloop: Tuneloop, open_page: OpenPage, screenshot: Screenshot
) -> None:
    page = open_page(tuneloop.url)
    expect(page.locator("#tl-first-model input")).to_have_value(tuneloop.base_model)
    expect(page.locator("#tl-second-model input")).to_have_value(tuneloop.tuned_model)
    expect_no_vote_possible(page)
    ask(page, "What is the capital of France?")
    wait_for_answers(page)
    shown = answers(page)
    assert all(words.strip() for words in shown)
    expect(page.locator(".tl-pane .tl-model")).to_have_count(0)
    expect(page.locator(".tl-status").first).to_contain_text("first token")

    page.locator("#tl-comment textarea").fill("Steadier at the helm")
    page.locator("#tl-vote-right").click()
    expect(page.locator(".tl-confirmation")).to_contain_text("your vote is stored")
    expect_no_vote_possible(page)
    screenshot(page, "compare-en-light")

    names = page.locator(".tl-pane .tl-model").all_inner_texts()
    assert sorted(names) == sorted([tuneloop.base_model, tuneloop.tuned_model])
    rating = newest_rating(tuneloop.url)
    assert (rating["verdict"], rating["comment"], rating["blind"]) == ("right", "Steadier at the helm", True)
    assert rating["messages"] == [{"role": "user", "content": "What is the capital of France?"}]
    assert [rating[side]["model"] for side in ("left", "right")] == names
    assert [rating[side]["content"].strip() for side in ("left", "right")] == [words.strip() for words in shown]


def test_votes_are_disabled_until_both_answers_are_finished(tuneloop: Tuneloop, open_page: OpenPage) -> None:
    page = open_page(tuneloop.url)
    expect(page.locator("#tl-second-model input")).to_have_value(tuneloop.tuned_model)
    # Looked at by the page itself in every drawn frame, for the answers may come faster than a test can look.
    page.evaluate(
        """() => {
          window.tooEarly = 0;
          const look = () => {
            const finished = document.querySelectorAll('.tl-pane.tl-done').length === 2;
            if (!finished && !document.querySelector('#tl-vote-left').disabled) window.tooEarly += 1;
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    ask(page, "What is the capital of Spain?")
    wait_for_answers(page)
    ask(page, "What is the capital of Italy?")
    page.wait_for_timeout(300)
    wait_for_answers(page)
    assert page.evaluate("window.tooEarly") == 0


def test_without_blind_each_pane_names_the_model_that_was_chosen_for_it(
    tuneloop: Tuneloop, open_page: OpenPage
) -> None:
    page = open_page(tuneloop.url)
    expect(page.locator("#tl-second-model input")).to_have_value(tuneloop.tuned_model)
    ask(page, "What is the capital of France?", blind=False)
    wait_for_answers(page)
    assert page.locator(".tl-model").all_inner_texts() == [tuneloop.base_model, tuneloop.tuned_model]


def test_the_page_is_chinese_for_a_chinese_browser_and_switches(
    tuneloop: Tuneloop, open_page: OpenPage, screenshot: Screenshot
) -> None:
    page = open_page(tuneloop.url, locale="zh-CN", color_scheme="dark")
    expect(page.locator("h1")).to_have_text("对比两个模型")
    expect(page.locator("#tl-vote-tie")).to_have_text("一样好")
    expect(page.get_by_role("button", name="刷新模型列表")).to_be_visible()
    ask(page, "What is the capital of France?")
    wait_for_answers(page)
    expect(page.locator(".tl-status").first).to_contain_text("首 token")
    screenshot(page, "compare-zh-dark")

    before = answers(page)
    page.get_by_text("English", exact=True).click()
    expect(page.locator("h1")).to_have_text("Compare two models")
    expect(page.locator(".tl-status").first).to_contain_text("first token")
    expect(page.locator("#tl-vote-left")).to_be_enabled()
    assert answers(page) == before
    page.reload()
    expect(page.locator("h1")).to_have_text("Compare two models")


def test_an_unknown_model_is_explained_and_its_html_stays_text(tuneloop: Tuneloop, open_page: OpenPage) -> None:
    page = open_page(tuneloop.url)
    expect(page.locator("#tl-second-model input")).to_have_value(tuneloop.tuned_model)
    page.locator("#tl-second-model input").fill(HOSTILE)
    page.locator("#tl-second-model input").press("Enter")
    ask(page, HOSTILE)
    problem = page.locator(".tl-pane .tl-problem").last
    expect(problem).to_contain_text("No such model is served")
    expect(problem).to_contain_text("<img src=x onerror=")
    expect(page.locator(".tl-pane img")).to_have_count(0)
    expect_no_vote_possible(page)
    assert page.title() == "tuneloop"


def test_markup_in_a_prompt_reaches_both_models_as_it_is(tuneloop: Tuneloop, open_page: OpenPage) -> None:
    page = open_page(tuneloop.url)
    expect(page.locator("#tl-second-model input")).to_have_value(tuneloop.tuned_model)
    ask(page, HOSTILE + " ${7*7} {{value}}")
    wait_for_answers(page)
    page.locator("#tl-vote-both-bad").click()
    expect(page.locator(".tl-confirmation")).to_be_visible()
    assert newest_rating(tuneloop.url)["messages"][0]["content"] == HOSTILE + " ${7*7} {{value}}"
    assert page.title() == "tuneloop"


def test_two_tabs_never_show_each_others_answers(tuneloop: Tuneloop, open_page: OpenPage) -> None:
    one, two = open_page(tuneloop.url), open_page(tuneloop.url)
    expect(one.locator("#tl-second-model input")).to_have_value(tuneloop.tuned_model)
    expect(two.locator("#tl-second-model input")).to_have_value(tuneloop.tuned_model)
    ask(one, "What is the capital of France?")
    wait_for_answers(one)
    expect(two.locator(".tl-pane.tl-empty")).to_have_count(2)
    expect_no_vote_possible(two)


@pytest.mark.parametrize("keys", ["Enter", "Control+Enter"])
def test_enter_sends_and_shift_enter_breaks_the_line(tuneloop: Tuneloop, open_page: OpenPage, keys: str) -> None:
    page = open_page(tuneloop.url)
    expect(page.locator("#tl-second-model input")).to_have_value(tuneloop.tuned_model)
    prompt = page.locator("#tl-prompt textarea")
    prompt.fill("What is")
    prompt.press("Shift+Enter")
    prompt.press_sequentially("the capital of France?")
    expect(prompt).to_have_value("What is\nthe capital of France?")
    expect(page.locator(".tl-pane.tl-empty")).to_have_count(2)
    prompt.press(keys)
    wait_for_answers(page)


def test_the_page_fits_a_phone(tuneloop: Tuneloop, open_page: OpenPage, screenshot: Screenshot) -> None:
    page = open_page(tuneloop.url, viewport={"width": 390, "height": 844})
    expect(page.locator("#tl-second-model input")).to_have_value(tuneloop.tuned_model)
    ask(page, "What is the capital of France?", blind=False)
    wait_for_answers(page)
    screenshot(page, "compare-phone")
    for element in page.locator(".tl-pane, .tl-votes button, #tl-refresh").all():
        box = element.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    left, right = (pane.bounding_box() for pane in page.locator(".tl-pane").all())
    assert left is not None
    assert right is not None
    assert right["y"] >= left["y"] + left["height"]


def test_sending_needs_a_prompt_and_two_different_models(tuneloop: Tuneloop, open_page: OpenPage) -> None:
    page = open_page(tuneloop.url)
    expect(page.locator("#tl-second-model input")).to_have_value(tuneloop.tuned_model)
    page.locator("#tl-send").click()
    expect(page.locator(".tl-notice")).to_have_text("Type a prompt first.")
    page.locator("#tl-second-model input").click()
    page.get_by_role("option", name=tuneloop.base_model, exact=True).click()
    ask(page, "Hello?")
    expect(page.locator(".tl-notice")).to_have_text(re.compile("two different models"))
    expect(page.locator(".tl-pane.tl-empty")).to_have_count(2)
