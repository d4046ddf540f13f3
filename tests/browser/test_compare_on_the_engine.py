"""The Compare page on the real engine."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.browser.compare_steps import ANSWER_TIMEOUT_MS, answers, send
from tests.browser.conftest import OpenPage
from tests.conftest import Lesson, Tuneloop

pytestmark = [pytest.mark.browser, pytest.mark.engine]


def test_real_models_answer_a_conversation_each_under_its_own_name(
    tuneloop: Tuneloop, lessons: list[Lesson], open_page: OpenPage
) -> None:
    page = open_page(f"{tuneloop.url}/?models={tuneloop.base_model},{quote(tuneloop.tuned_model)}")
    expect(page.locator("#tl-model-a input")).to_have_value(tuneloop.base_model)
    expect(page.locator("#tl-model-b input")).to_have_value(tuneloop.tuned_model)
    page.locator("#tl-settings button").first.click()
    page.locator("#tl-temperature input[type=number]").fill("0")  # by chance an answer may be empty
    page.keyboard.press("Tab")
    for number, lesson in enumerate(lessons, 1):
        send(page, lesson.question)
        expect(page.locator(".tl-pane.tl-done")).to_have_count(2 * number, timeout=ANSWER_TIMEOUT_MS)
    assert all(answers(page))
    assert page.locator(".tl-model").all_inner_texts() == [tuneloop.base_model, tuneloop.tuned_model] * 2
    expect(page.locator(".tl-status").last).to_contain_text("first token")
    path = page.locator("[data-copy]").get_attribute("data-copy")
    reader = open_page(f"{tuneloop.url}/{path}")
    expect(reader.locator(".tl-pane.tl-done")).to_have_count(4)
    assert answers(reader) == answers(page)
