"""The rating page in a real browser: both ways in, keys alone, refresh, undo, two tabs, and what can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import FindFaults, OpenPage
from tests.browser.paged_gateway import CAPTAIN as REAL_CAPTAIN
from tests.browser.paged_gateway import lone_pages, make, paged_gateway
from tests.browser.scripted import CAPTAIN, POET
from tests.browser.scripted_arena import ANSWERS, CAMPAIGN, INVITE, Arena

pytestmark = pytest.mark.browser

PROMPT = "Why do lighthouses blink?"
HOSTILE = "<img src=x onerror=\"document.title='broken in'\"> <script>document.title='broken in'</script>"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
Screenshot = Callable[[Page, str], None]


@pytest.fixture
def url(served_arena: tuple[str, Arena]) -> str:
    return served_arena[0]


@pytest.fixture
def arena(served_arena: tuple[str, Arena]) -> Arena:
    """The module's server as it was at first."""
    _, arena = served_arena
    vars(arena).update(vars(Arena()))
    return arena


def ask(page: Page, prompt: str = PROMPT) -> None:
    page.locator("#rate-prompt").fill(prompt)
    page.locator("#rate-prompt").press("Enter")


def vote(page: Page, verdict: str = "left") -> None:
    page.locator(f"#rate-verdict-{verdict}").click()
    page.locator("#rate-store").click()


def invited(url: str) -> str:
    return f"{url}/rate?invite={INVITE}"


def test_a_whole_vote_is_cast_with_keys_alone(
    url: str, arena: Arena, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    page = open_page(f"{url}/rate")
    page.locator("#rate-prompt").focus()
    page.keyboard.type(PROMPT)
    page.keyboard.press("Enter")
    expect(page.locator("#rate-which")).to_be_focused()
    assert page.locator(".rate-model").count() == 0
    assert axe(page) == []

    page.keyboard.press("ArrowRight")
    expect(page.locator("#rate-verdict-right")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#rate-left-instruction_following-1")).to_be_focused()
    for key in "4533":
        page.keyboard.press(key)
    expect(page.locator("#rate-left-fluency-1")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#rate-store")).to_have_count(0)
    page.keyboard.press("1")
    expect(page.locator("#rate-right-relevance-3")).to_be_checked()
    screenshot(page, "rate-en-light")
    assert axe(page) == []

    page.keyboard.press("Enter")
    expect(page.locator("#rate-next")).to_be_focused()
    expect(page.locator(".rate-last")).to_contain_text(f"A was {CAPTAIN}")
    assert arena.bodies_sent("/ratings") == [
        {
            "verdict": "left",
            "dimensions": {
                "left": {"instruction_following": 4, "relevance": 3},
                "right": {"instruction_following": 5, "relevance": 3},
            },
        }
    ]
    assert axe(page) == []
    page.keyboard.press("Enter")
    expect(page.locator("#rate-prompt")).to_be_focused()


def test_flag_comment_and_name_go_with_the_vote(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(f"{url}/rate")
    page.locator("#rate-name").fill("Ann")
    ask(page)
    page.locator("#rate-verdict-both_bad").click()
    page.locator("#rate-unsafe-right").check()
    page.locator("#rate-comment").fill("1, 2 and 3 are typed, not chosen")
    page.locator("#rate-store").click()
    expect(page.locator(".rate-last")).to_contain_text("You rated both bad.")
    assert arena.bodies_sent("/ratings") == [
        {"verdict": "both_bad", "unsafe": "right", "comment": "1, 2 and 3 are typed, not chosen", "rater": "Ann"}
    ]
    assert arena.bodies_sent("/v1/comparisons")[0]["blind"] is True
    page.reload()
    expect(page.locator("#rate-name")).to_have_value("Ann")


def test_keys_rest_while_typing_and_when_they_are_switched_off(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(f"{url}/rate")
    ask(page)
    expect(page.locator("#rate-which")).to_be_focused()
    page.locator("#rate-prompt").press("1")
    page.locator("#rate-keys").uncheck()
    page.locator("#rate-which").focus()
    page.keyboard.press("2")
    page.locator("#rate-keys").check()
    page.locator("#rate-which").focus()
    page.keyboard.press("3")
    expect(page.locator("#rate-verdict-tie")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#rate-verdict-right")).to_have_attribute("aria-pressed", "false")


def test_an_invited_rater_goes_from_pair_to_pair_and_sees_nothing_else(
    url: str, arena: Arena, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    page = open_page(invited(url))
    expect(page.locator(".rate-progress")).to_contain_text("You're rating as Ann in “Harbour answers”.")
    expect(page.locator("#rate-prompt")).to_have_count(0)
    expect(page.locator(".tl-nav")).to_be_hidden()
    assert axe(page) == []
    for number, verdict in enumerate(("left", "right", "tie"), start=1):
        expect(page.locator(".rate-question")).to_contain_text(f"Question {number}:")
        vote(page, verdict)
        expect(page.locator("#rate-count")).to_have_text(f"{number} of 3 rated")
    expect(page.locator(".tl-empty-state")).to_contain_text("All done. Thank you!")
    expect(page.locator(".rate-last")).to_contain_text("You rated both equally good.")
    assert [body["verdict"] for body in arena.bodies_sent("/ratings")] == ["left", "right", "tie"]
    assert all("rater" not in body for body in arena.bodies_sent("/ratings"))
    screenshot(page, "rate-invited-done")


def test_a_refresh_in_the_middle_of_a_vote_brings_back_pair_verdict_scores_and_comment(
    url: str, arena: Arena, open_page: OpenPage
) -> None:
    page = open_page(invited(url))
    page.locator("#rate-verdict-right").click()
    page.locator("#rate-right-helpfulness-5").check(force=True)
    page.locator("#rate-comment").fill("half a thought")
    page.reload()
    expect(page.locator("#rate-verdict-right")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#rate-right-helpfulness-5")).to_be_checked()
    expect(page.locator("#rate-comment")).to_have_value("half a thought")
    assert len(arena.comparisons) == 1
    page.locator("#rate-store").click()
    expect(page.locator("#rate-count")).to_have_text("1 of 3 rated")
    assert arena.bodies_sent("/ratings") == [
        {"verdict": "right", "dimensions": {"right": {"helpfulness": 5}}, "comment": "half a thought"}
    ]
    page.locator("#rate-verdict-left").click()
    expect(page.locator("#rate-comment")).to_have_value("")


def test_an_undone_vote_is_replaced_by_the_next_one_even_after_a_refresh(
    url: str, arena: Arena, open_page: OpenPage
) -> None:
    page = open_page(invited(url))
    vote(page, "left")
    expect(page.locator(".rate-question")).to_contain_text("Question 2:")
    page.locator("#rate-undo").click()
    expect(page.locator(".tl-notice")).to_contain_text("Rating undone")
    expect(page.locator(".rate-question")).to_contain_text("Question 1:")
    expect(page.locator("#rate-count")).to_have_text("0 of 3 rated")
    page.reload()
    expect(page.locator(".rate-question")).to_contain_text("Question 1:")
    vote(page, "right")
    expect(page.locator(".rate-question")).to_contain_text("Question 2:")
    assert arena.bodies_sent("/ratings")[1] == {"verdict": "right", "supersedes": "rating_2"}


def test_a_vote_that_is_too_old_stays_and_the_rater_is_told(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(invited(url))
    vote(page, "left")
    expect(page.locator("#rate-undo")).to_be_visible()
    arena.refuse["POST", "/withdraw"] = (409, "undo_too_late", "A vote can be undone for 60 s.")
    page.locator("#rate-undo").click()
    expect(page.locator(".tl-notice")).to_contain_text("it wasn't undone here")
    expect(page.locator("#rate-undo")).to_have_count(0)
    expect(page.locator("#rate-count")).to_have_text("1 of 3 rated")


def test_of_two_tabs_on_one_pair_one_votes_and_the_other_goes_on(url: str, arena: Arena, open_page: OpenPage) -> None:
    first = open_page(invited(url))
    second = first.context.new_page()
    second.goto(invited(url))
    expect(second.locator(".rate-question")).to_contain_text("Question 1:")
    vote(first, "left")
    expect(first.locator("#rate-count")).to_have_text("1 of 3 rated")
    vote(second, "right")
    expect(second.locator(".tl-notice")).to_contain_text("already rated this pair")
    expect(second.locator(".rate-question")).to_contain_text("Question 2:")
    assert [rating["verdict"] for rating in arena.ratings.values()] == ["left"]


def test_a_vote_that_the_server_didnt_take_stays_on_the_page_and_is_sent_again(
    url: str, arena: Arena, open_page: OpenPage
) -> None:
    page = open_page(invited(url))
    page.locator("#rate-verdict-left").click()
    page.locator("#rate-comment").fill("keep me")
    arena.refuse["POST", "/ratings"] = (500, "server_error", "The disk is full.")
    page.locator("#rate-store").click()
    expect(page.locator(".tl-problem")).to_contain_text("The disk is full.")
    expect(page.locator("#rate-comment")).to_have_value("keep me")
    arena.refuse.clear()
    page.locator("#rate-store").click()
    expect(page.locator("#rate-count")).to_have_text("1 of 3 rated")
    expect(page.locator(".tl-problem")).to_have_count(0)


def test_a_link_that_isnt_valid_any_more_says_whom_to_ask(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(f"{url}/rate?invite=tl-invite-revoked")
    expect(page.locator(".tl-empty-state")).to_contain_text("This invitation link isn't valid")
    expect(page.locator("#tl-api-key")).to_be_hidden()


def test_a_campaign_that_closes_under_the_rater_takes_the_open_vote_and_says_so(
    url: str, arena: Arena, open_page: OpenPage
) -> None:
    page = open_page(invited(url))
    expect(page.locator(".rate-question")).to_contain_text("Question 1:")
    arena.campaigns[CAMPAIGN] = {"status": "closed", "name": "Harbour answers", "dimensions": True}
    arena.refuse["POST", "/assignments"] = (409, "campaign_closed", "The campaign is closed.")
    vote(page)
    expect(page.locator(".tl-empty-state")).to_contain_text("This campaign is closed")
    assert [rating["verdict"] for rating in arena.ratings.values()] == ["left"]


def test_while_the_server_is_away_the_rater_can_try_again(url: str, arena: Arena, open_page: OpenPage) -> None:
    arena.refuse["GET", "/v1/invitation"] = (503, "engine_unavailable", "Starting.")
    page = open_page(invited(url))
    expect(page.locator(".tl-problem")).to_be_visible()
    arena.refuse.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".rate-question")).to_contain_text("Question 1:")


def test_leaving_while_the_answers_are_written_keeps_the_prompt(url: str, arena: Arena, open_page: OpenPage) -> None:
    arena.pause_s = 0.3
    page = open_page(f"{url}/rate")
    ask(page)
    expect(page.locator(".rate-text").first).to_contain_text("The")
    page.reload()
    expect(page.locator(".tl-notice")).to_contain_text("weren't saved")
    expect(page.locator("#rate-prompt")).to_have_value(PROMPT)
    arena.pause_s = 0
    page.locator("#rate-send").click()
    expect(page.locator("#rate-verdict-left")).to_be_visible()


def test_stop_ends_the_answers_and_nothing_can_be_voted_on(url: str, arena: Arena, open_page: OpenPage) -> None:
    arena.pause_s = 0.5
    page = open_page(f"{url}/rate")
    ask(page)
    page.locator("#rate-stop").click()
    expect(page.locator(".tl-notice")).to_contain_text("Stopped.")
    expect(page.locator("#rate-verdict-left")).to_have_count(0)
    expect(page.locator("#rate-send")).to_be_visible()


def test_hostile_right_to_left_and_chinese_answers_are_shown_as_words(
    url: str, arena: Arena, open_page: OpenPage
) -> None:
    arena.answers = {"left": HOSTILE, "right": "مرحبا بالعالم 灯塔"}
    page = open_page(f"{url}/rate")
    ask(page, HOSTILE)
    expect(page.locator(".rate-left .rate-text")).to_contain_text("<script>")
    expect(page.locator(".rate-question")).to_contain_text("<img src=x")
    assert page.locator(".rate-right .rate-text").evaluate("text => getComputedStyle(text).direction") == "rtl"
    assert page.title() != "broken in"


def test_a_prompt_of_200_kb_is_sent_and_shown(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(f"{url}/rate")
    ask(page, "word " * 40_000)
    expect(page.locator("#rate-verdict-left")).to_be_visible()
    assert len(arena.bodies_sent("/v1/comparisons")[0]["messages"][0]["content"]) == 199_999
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_chinese_reader_on_a_dark_phone_can_rate(
    url: str, arena: Arena, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    page = open_page(invited(url), locale="zh-CN", color_scheme="dark", **PHONE)
    expect(page.locator(".tl-title")).to_have_text("回答评分")
    page.locator("#rate-verdict-right").tap()
    expect(page.locator("#rate-store")).to_contain_text("提交评分")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert axe(page) == []
    screenshot(page, "rate-zh-dark-phone")
    page.locator("#rate-store").tap()
    expect(page.locator(".rate-last")).to_contain_text(f"B 是 {POET}")


def test_a_change_of_language_keeps_the_vote_in_the_making(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(invited(url))
    page.locator("#rate-verdict-left").click()
    page.locator("#rate-left-fluency-2").check(force=True)
    page.get_by_text("中文").click()
    expect(page.locator("#rate-store")).to_contain_text("提交评分")
    expect(page.locator("#rate-left-fluency-2")).to_be_checked()
    expect(page.locator(".rate-left .rate-text").first).to_have_text(ANSWERS["left"])


def test_over_the_real_gateway_a_campaign_goes_from_form_to_leaderboard(tmp_path: Path, open_page: OpenPage) -> None:
    with lone_pages() as pages, paged_gateway(tmp_path, pages) as gateway:
        make(gateway, REAL_CAPTAIN)
        page = open_page(f"{pages.url}/campaigns")
        page.locator("#camp-name").fill("Spring")
        page.locator("#camp-model-0").check()
        page.locator("#camp-model-1").check()
        page.locator("#camp-prompts").fill("One?\nTwo?")
        page.locator("#camp-create").click()
        page.locator("#camp-rater").fill("Ann")
        page.locator("#camp-rater").press("Enter")
        expect(page.locator(".camp-chip")).to_have_text("Open")
        link = page.locator(".camp-link code").inner_text()

        rater = open_page(link)
        for number in (1, 2):
            vote(rater)
            expect(rater.locator("#rate-count")).to_have_text(f"{number} of 2 rated")
        expect(rater.locator(".tl-empty-state")).to_contain_text("All done")

        page.get_by_role("link", name="View leaderboard").click()
        expect(page.locator(".board-summary")).to_contain_text("2 ratings")
        expect(page.locator(".plot-row")).to_have_count(2)
        ratings = gateway.http.get("/v1/ratings").json()["data"]
        assert {(one["rater"], one["verdict"], one["blind"]) for one in ratings} == {("Ann", "left", True)}
