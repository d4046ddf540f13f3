"""The Compare page in a real browser, against a tuneloop that the test scripts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial

import pytest
from playwright.sync_api import Page, expect

from tests.browser.compare_steps import answers, expect_done, opened, prompts, send
from tests.browser.compare_steps import script as script
from tests.browser.compare_steps import served as served
from tests.browser.compare_steps import url as url
from tests.browser.conftest import FindFaults, OpenPage
from tests.browser.scripted import BASE, CAPTAIN, POET, Script, scripted_app
from tests.ui.running import running

pytestmark = pytest.mark.browser

PATIENCE_MS = 30_000
POLL_INTERVAL_S = 2.0
HOSTILE = (
    "<img src=x onerror=\"document.title='broken in'\"><script>document.title='broken in'</script> ${7*7} {{value}}"
)
ARABIC = "مرحبا بالعالم"
CHINESE = "巴黎是法国的首都。"
LIGHTHOUSE = (
    "The tower keeps its light on through the night, and the sea answers it. It is a long way home, but the lamp shows "
    "where the rocks are."
)
Screenshot = Callable[[Page, str], None]


def test_each_pane_names_its_model_and_shows_its_words_and_numbers(
    url: str, script: Script, open_page: OpenPage, screenshot: Screenshot
) -> None:
    script.answers |= {BASE: LIGHTHOUSE, POET: f"O night! {LIGHTHOUSE}"}
    page = opened(open_page, url)
    expect(page.locator("#tl-model-b input")).to_have_value(POET)
    send(page, "Tell me of the lighthouse.")
    expect_done(page)
    assert page.locator(".tl-pane .tl-model").all_inner_texts() == [BASE, POET]
    assert answers(page) == [LIGHTHOUSE, f"O night! {LIGHTHOUSE}"]
    for status in page.locator(".tl-status").all():
        expect(status).to_contain_text(re.compile(r"first token 0\.12 s.*tokens/s.*tokens in 0\.6 s", re.DOTALL))
    page.get_by_role("button", name="Highlight differences").click()
    expect(page.locator(".compare-differs")).to_have_text(["O night"])
    expect(page.locator("#tl-sent")).to_be_hidden()
    screenshot(page, "compare-en-light")


def test_four_models_answer_at_once(url: str, script: Script, open_page: OpenPage, screenshot: Screenshot) -> None:
    script.models.append("ft:base:personal:judge:cccccccc")
    page = opened(open_page, url)
    page.locator("#tl-more").click()
    page.locator("#tl-more").click()
    expect(page.locator("#tl-model-d input")).to_be_visible()
    expect(page.locator("#tl-more")).to_be_hidden()
    send(page, "Hello?")
    expect_done(page, 4)
    names = page.locator(".tl-pane .tl-model").all_inner_texts()
    assert sorted(names) == sorted(script.models)
    assert answers(page) == [f"{name} answers: Hello?" for name in names]
    screenshot(page, "compare-four")
    page.locator("#tl-fewer").click()
    expect(page.locator("#tl-model-d input")).to_be_hidden()
    send(page, "Three of you?")
    expect_done(page, 3)


def test_system_prompt_and_sampling_are_sent(url: str, script: Script, open_page: OpenPage) -> None:
    page = opened(open_page, url)
    page.locator("#tl-settings button").first.click()
    page.locator("#tl-system textarea").fill("Be brief.")
    wanted = {"temperature": "0.3", "top-p": "0.9", "max-tokens": "64", "seed": "7"}
    fields = {name: page.locator(f"#tl-{name} input[type=number]") for name in wanted}
    # The panel's fields get their first values a moment after it has opened, over what is there by then.
    for _ in range(20):
        for name in [name for name, field in fields.items() if field.input_value() != wanted[name]]:
            fields[name].fill(wanted[name])
            fields[name].press("Tab")
    assert {name: field.input_value() for name, field in fields.items()} == wanted
    send(page, "Hello?")
    expect_done(page)
    body = script.bodies[-1]
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["seed"]) == (0.3, 0.9, 64, 7)


def test_a_second_prompt_goes_on_from_each_models_own_answer(url: str, script: Script, open_page: OpenPage) -> None:
    page = opened(open_page, url)
    send(page, "Hello?")
    expect_done(page)
    send(page, "And then?")
    expect_done(page, 4)
    histories = script.bodies[-1]["histories"]
    assert [history[1]["content"].strip() for history in histories] == [f"{m} answers: Hello?" for m in (BASE, POET)]
    assert [history[-1]["content"] for history in histories] == ["And then?", "And then?"]


def test_an_edited_prompt_goes_on_from_there(url: str, script: Script, open_page: OpenPage) -> None:
    page = opened(open_page, url)
    for number, prompt in enumerate(("First?", "Second?"), 1):
        send(page, prompt)
        expect_done(page, 2 * number)
    page.get_by_role("button", name="Edit").first.click()
    expect(page.locator(".compare-editing")).to_contain_text("prompt 1")
    expect(page.locator("#tl-prompt textarea")).to_have_value("First?")
    expect(page.locator("#tl-prompt textarea")).to_be_focused()
    send(page, "Better?")
    expect(page.locator(".compare-words")).to_have_text(["Better?"])
    expect_done(page)
    assert script.bodies[-1]["messages"] == [{"role": "user", "content": "Better?"}]


def test_regenerate_asks_the_last_prompt_anew(url: str, script: Script, open_page: OpenPage) -> None:
    page = opened(open_page, url)
    send(page, "Hello?")
    expect_done(page)
    script.answers[BASE] = "Something else"
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".tl-answer").first).to_have_text("Something else ")
    expect_done(page)
    assert [body["messages"] for body in script.bodies] == [[{"role": "user", "content": "Hello?"}]] * 2


def test_stop_keeps_what_came_and_the_conversation_goes_on(url: str, script: Script, open_page: OpenPage) -> None:
    script.pause_s = 0.2
    script.answers |= {BASE: LIGHTHOUSE, POET: LIGHTHOUSE}
    page = opened(open_page, url)
    send(page, "Tell me.")
    expect(page.locator(".tl-answer").first).to_contain_text("keeps")
    page.locator("#tl-stop").click()
    expect(page.locator(".tl-pane.tl-stopped")).to_have_count(2)
    assert all(LIGHTHOUSE.startswith(words) and words != LIGHTHOUSE for words in answers(page))
    expect(page.get_by_role("button", name="Copy link")).to_have_count(0)
    script.pause_s = 0.0
    send(page, "Go on.")
    expect(page.locator(".tl-pane.tl-done")).to_have_count(2)


def test_a_share_link_shows_the_comparison_and_the_reader_may_go_on(
    url: str, script: Script, open_page: OpenPage
) -> None:
    page = opened(open_page, url)
    send(page, "Hello?")
    expect_done(page)
    send(page, "And then?")
    expect_done(page, 4)
    link = page.locator("[data-copy]")
    path = link.get_attribute("data-copy")
    link.click()
    expect(link).to_have_text("✓ Copied")

    reader = open_page(f"{url}/{path}")
    expect(reader.locator(".tl-pane.tl-done")).to_have_count(4)
    assert prompts(reader) == ["Hello?", "And then?"]
    assert answers(reader) == answers(page)
    expect(reader.locator("#tl-prompt")).to_be_hidden()
    reader.get_by_role("button", name="Continue from here").click()
    expect(reader.locator("#tl-prompt")).to_be_visible()
    expect(reader).not_to_have_url(re.compile("comparison"))
    send(reader, "Third?")
    expect_done(reader, 6)
    assert [len(history) for history in script.bodies[-1]["histories"]] == [5, 5]


def test_a_link_to_no_comparison_says_so(url: str, open_page: OpenPage) -> None:
    page = open_page(f"{url}/?comparison=cmp_none")
    expect(page.locator(".tl-problem")).to_contain_text("No such comparison")
    expect(page.locator("#tl-model-a input")).to_have_value(BASE)


def test_a_refresh_keeps_conversation_choice_and_draft(url: str, script: Script, open_page: OpenPage) -> None:
    page = opened(open_page, url)
    page.locator("#tl-model-b input").click()
    page.get_by_role("option", name=CAPTAIN, exact=True).click()
    send(page, "Hello?")
    expect_done(page)
    page.locator("#tl-prompt textarea").fill("Not yet sent")
    before = answers(page)
    page.reload()
    expect_done(page)
    assert answers(page) == before
    expect(page.locator("#tl-model-b input")).to_have_value(CAPTAIN)
    expect(page.locator("#tl-prompt textarea")).to_have_value("Not yet sent")
    page.locator("#tl-prompt textarea").press("Enter")
    expect_done(page, 4)
    assert "histories" in script.bodies[-1]


def test_a_refresh_while_answers_come_keeps_their_words(url: str, script: Script, open_page: OpenPage) -> None:
    script.pause_s = 0.2
    script.answers |= {BASE: LIGHTHOUSE, POET: LIGHTHOUSE}
    page = opened(open_page, url)
    send(page, "Tell me.")
    expect(page.locator(".tl-answer").first).to_contain_text("through the night")
    page.reload()
    expect(page.locator(".tl-pane.tl-interrupted")).to_have_count(2)
    assert all(words.startswith("The tower") for words in answers(page))
    expect(page.locator("#tl-send")).to_be_visible()


def test_a_server_that_restarts_while_answers_come_leaves_their_words(open_page: OpenPage) -> None:
    script = Script(pause_s=0.2, answers={BASE: LIGHTHOUSE, POET: LIGHTHOUSE})
    make = partial(scripted_app, script)
    with running(make) as url:
        page = opened(open_page, url)
        send(page, "Tell me.")
        expect(page.locator(".tl-answer").first).to_contain_text("through the night")
        page.evaluate("window.isOldPage = true")
    with running(make, port=int(url.rsplit(":", 1)[1])):
        page.wait_for_function("!window.isOldPage", timeout=2 * PATIENCE_MS)  # it reloads by itself
        expect(page.locator(".tl-pane.tl-interrupted, .tl-pane.tl-failed")).to_have_count(2)
        assert all(words.startswith("The tower") for words in answers(page))
        script.pause_s = 0.0
        send(page, "Are you back?")
        expect(page.locator(".tl-pane.tl-done")).to_have_count(2)


def test_words_of_another_model_are_never_shown(url: str, script: Script, open_page: OpenPage) -> None:
    script.answered_by[POET] = CAPTAIN
    page = opened(open_page, url)
    send(page, "Who are you?")
    expect(page.locator(".tl-pane.tl-failed .tl-problem")).to_contain_text("A different model answered")
    assert answers(page) == [f"{BASE} answers: Who are you?"]


def test_an_engine_that_is_down_is_told_and_the_page_goes_on_by_itself(
    url: str, script: Script, open_page: OpenPage
) -> None:
    script.ready = "unhealthy"
    script.refuse = {"message": "exited with 137", "type": "server_error", "code": "engine_unavailable"}
    page = opened(open_page, url)
    expect(page.locator(".tl-notice.tl-down")).to_contain_text("engine isn't running")
    send(page, "Hello?")
    expect(page.locator(".tl-pane.tl-failed .tl-problem")).to_have_count(2)
    expect(page.locator(".tl-problem").first).to_contain_text("exited with 137")
    script.ready, script.refuse = "ready", None
    expect(page.locator(".tl-notice.tl-down")).to_be_hidden()
    page.get_by_role("button", name="Regenerate").click()
    expect_done(page)


def test_an_answer_that_breaks_off_keeps_its_words(url: str, script: Script, open_page: OpenPage) -> None:
    script.break_off_after = 3
    script.answers |= {BASE: LIGHTHOUSE, POET: LIGHTHOUSE}
    page = opened(open_page, url)
    send(page, "Tell me.")
    expect(page.locator(".tl-pane.tl-failed")).to_have_count(2)
    assert answers(page) == ["The tower keeps"] * 2
    expect(page.locator(".tl-problem").first).to_contain_text("connection was lost")


def test_two_tabs_never_show_each_others_answers(url: str, open_page: OpenPage) -> None:
    one = opened(open_page, url)
    two = one.context.new_page()
    two.goto(url)
    expect(two.locator("#tl-model-a input")).to_have_value(BASE)
    send(one, "One?")
    expect_done(one)
    send(two, "Two?")
    expect_done(two)
    one.reload()
    expect_done(one)
    assert (prompts(one), prompts(two)) == (["One?"], ["Two?"])


def test_a_prompt_of_200_kb_is_sent_whole_and_kept(url: str, script: Script, open_page: OpenPage) -> None:
    prompt = "The lamp burns on. " * 10_800
    script.answers |= {BASE: "Long.", POET: "Very long."}
    page = opened(open_page, url)
    send(page, prompt)
    expect_done(page)
    assert script.bodies[-1]["messages"][0]["content"] == prompt
    page.reload()
    expect_done(page)
    assert prompts(page)[0].strip() == prompt.strip()


def test_markup_and_other_scripts_are_shown_as_text(
    url: str, script: Script, open_page: OpenPage, screenshot: Screenshot
) -> None:
    script.answers |= {BASE: HOSTILE, POET: f"{ARABIC} {CHINESE}"}
    page = opened(open_page, url)
    send(page, HOSTILE)
    expect_done(page)
    assert answers(page) == [HOSTILE, f"{ARABIC} {CHINESE}"]
    assert prompts(page) == [HOSTILE]
    assert script.bodies[-1]["messages"][0]["content"] == HOSTILE
    expect(page.locator(".tl-pane img")).to_have_count(0)
    direction = "element => getComputedStyle(element).direction"
    assert [page.locator(".tl-answer").nth(side).evaluate(direction) for side in (0, 1)] == ["ltr", "rtl"]
    page.get_by_role("button", name="Highlight differences").click()
    expect(page.locator(".compare-differs").first).to_be_visible()
    assert answers(page)[0] == HOSTILE
    assert page.title() == "Compare models · tuneloop"
    screenshot(page, "compare-scripts")


def test_a_model_that_is_published_appears_by_itself(url: str, script: Script, open_page: OpenPage) -> None:
    page = opened(open_page, url)
    script.models.append("ft:base:personal:new:dddddddd")
    seen, deadline = script.listings, time.monotonic() + PATIENCE_MS / 1000
    while script.listings < seen + 2:  # by the time that it looks again, it shows what it has seen before
        assert time.monotonic() < deadline, "the page doesn't look"
        page.wait_for_timeout(100)
    page.locator("#tl-model-b input").click()
    expect(page.get_by_role("option", name="ft:base:personal:new:dddddddd", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#tl-model-b input")).to_have_value(POET)


def test_a_server_with_only_its_base_says_how_to_get_a_tuned_model(
    url: str, script: Script, open_page: OpenPage
) -> None:
    script.models = [BASE]
    page = opened(open_page, url)
    expect(page.locator(".tl-empty-state")).to_contain_text("tuneloop train CONFIG.yaml")


def test_sending_needs_a_prompt_and_different_models(url: str, script: Script, open_page: OpenPage) -> None:
    page = opened(open_page, url)
    page.locator("#tl-send").click()
    expect(page.locator(".tl-notice")).to_have_text("Enter a prompt first.")
    page.locator("#tl-model-b input").click()
    page.get_by_role("option", name=BASE, exact=True).click()
    send(page, "Hello?")
    expect(page.locator(".tl-notice")).to_have_text(re.compile("different model"))
    assert script.bodies == []


def test_other_pages_choose_the_models_by_the_address(url: str, open_page: OpenPage) -> None:
    page = open_page(f"{url}/?models={CAPTAIN},{BASE},{POET}")
    expect(page.locator("#tl-model-c input")).to_have_value(POET)
    expect(page.locator("#tl-model-a input")).to_have_value(CAPTAIN)


@pytest.mark.parametrize("keys", ["Enter", "Control+Enter"])
def test_enter_sends_and_shift_enter_breaks_the_line(url: str, script: Script, open_page: OpenPage, keys: str) -> None:
    page = opened(open_page, url)
    prompt = page.locator("#tl-prompt textarea")
    prompt.fill("What is")
    prompt.press("Shift+Enter")
    prompt.press_sequentially("the capital of France?")
    expect(prompt).to_have_value("What is\nthe capital of France?")
    assert script.bodies == []
    prompt.press(keys)
    expect_done(page)


def test_the_page_is_chinese_for_a_chinese_browser_and_switches(
    url: str, script: Script, open_page: OpenPage, screenshot: Screenshot
) -> None:
    script.answers |= {BASE: CHINESE, POET: "啊，巴黎！法国的首都。"}
    page = opened(open_page, url, locale="zh-CN", color_scheme="dark")
    expect(page.locator("h1")).to_have_text("模型对比")
    send(page, "法国的首都是哪里？")
    expect_done(page)
    expect(page.locator(".tl-status").first).to_contain_text("首 token")
    page.get_by_role("button", name="高亮差异").click()
    expect(page.locator(".compare-differs").first).to_be_visible()
    screenshot(page, "compare-zh-dark")
    before = answers(page)
    page.get_by_text("English", exact=True).click()
    expect(page.locator("h1")).to_have_text("Compare models")
    expect(page.locator(".tl-status").first).to_contain_text("first token")
    assert answers(page) == before
    page.reload()
    expect(page.locator("h1")).to_have_text("Compare models")


def test_the_page_fits_a_phone(url: str, script: Script, open_page: OpenPage, screenshot: Screenshot) -> None:
    script.answers |= {BASE: LIGHTHOUSE, POET: LIGHTHOUSE}
    page = opened(open_page, url, viewport={"width": 390, "height": 844})
    send(page, "Tell me of the lighthouse.")
    expect_done(page)
    screenshot(page, "compare-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    left, right = (pane.bounding_box() for pane in page.locator(".tl-pane").all())
    assert left is not None
    assert right is not None
    assert right["y"] >= left["y"] + left["height"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_assistive_technology(
    url: str, open_page: OpenPage, axe: FindFaults, theme: str
) -> None:
    page = opened(open_page, url, color_scheme=theme)
    page.locator("#tl-settings button").first.click()
    assert axe(page) == []
    send(page, "Hello?")
    expect_done(page)
    page.get_by_role("button", name="Highlight differences").click()
    page.get_by_role("button", name="Edit").first.click()
    expect(page.locator(".compare-editing")).to_be_visible()
    assert axe(page) == []
