"""The leaderboard page in a real browser: filters in the address, download, training, and its empty states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.arena_example import EMPTY, LEADERBOARD
from tests.browser.conftest import FindFaults, OpenPage
from tests.browser.scripted import BASE, CAPTAIN, POET
from tests.browser.scripted_arena import CAMPAIGN, Arena, campaign_object

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
Screenshot = Callable[[Page, str], None]


@pytest.fixture
def arena(served_arena: tuple[str, Arena]) -> Arena:
    """The module's server with one campaign and votes."""
    _, arena = served_arena
    vars(arena).update(vars(Arena(leaderboard=LEADERBOARD)))
    arena.campaigns[CAMPAIGN] = campaign_object(
        CAMPAIGN, "Harbour answers", [BASE, CAPTAIN], raters=[{"rater": "Ann", "votes": 3}]
    )
    return arena


@pytest.fixture
def url(served_arena: tuple[str, Arena], arena: Arena) -> str:
    return f"{served_arena[0]}/leaderboard"


def test_what_the_votes_say_is_shown_with_its_uncertainty(
    url: str, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    page = open_page(url)
    expect(page.locator(".plot-row")).to_have_count(3)
    for words in ("214 ratings", f"{CAPTAIN} is better", "About 310 more ratings needed.", "Tentative",
                  "No evidence of position bias.", "10 excluded"):  # fmt: skip
        expect(page.locator(".board")).to_contain_text(words)
    expect(page.locator(".heat-table td", has_text="62%")).to_have_attribute(
        "title", f"{CAPTAIN} beats {POET} in 62% of comparisons (53% to 71%); direct ratings: 72"
    )
    assert axe(page) == []
    screenshot(page, "leaderboard-en-light")


def test_filters_stand_in_the_address_and_survive_a_refresh(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(url)
    page.locator("#board-campaign").select_option(CAMPAIGN)
    page.locator("#board-after").fill("2026-11-01")
    page.locator("#board-rater").fill("Ann")
    page.locator("#board-rater").press("Tab")
    page.locator("#board-blind_only").uncheck()
    page.locator("#board-style_control").check()
    page.wait_for_url(
        "**/leaderboard?campaign=camp_harbour&after=2026-11-01&rater=Ann&blind_only=false&style_control=true"
    )
    page.reload()
    expect(page.locator("#board-campaign")).to_have_value(CAMPAIGN)
    expect(page.locator("#board-rater")).to_have_value("Ann")
    expect(page.locator("#board-blind_only")).not_to_be_checked()
    assert arena.leaderboards[-1] == {
        "campaign": CAMPAIGN, "after": "1793491200", "rater": "Ann", "blind_only": "false", "style_control": "true",
    }  # fmt: skip
    page.locator("#board-clear").click()
    page.wait_for_url("**/leaderboard")
    expect(page.locator("#board-campaign")).to_have_value("")


def test_an_answer_takes_no_filter_back_that_is_on_its_way(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(url)
    expect(page.locator(".plot-row")).to_have_count(3)
    asked: list[Route] = []

    def hold_the_second(route: Route) -> None:
        asked.append(route)
        if len(asked) != 2:
            route.continue_()

    page.route("**/queue/join*", hold_the_second)
    page.locator("#board-campaign").select_option(CAMPAIGN)
    page.locator("#board-after").fill("2026-11-01")
    page.wait_for_url("**/leaderboard?campaign=camp_harbour")
    expect(page.locator("#board-after")).to_have_value("2026-11-01")
    asked[1].continue_()
    page.locator("#board-rater").fill("Ann")
    page.locator("#board-rater").press("Tab")
    page.wait_for_url("**/leaderboard?campaign=camp_harbour&after=2026-11-01&rater=Ann*")
    expect(page.locator("#board-after")).to_have_value("2026-11-01")
    page.locator("#board-clear").click()
    page.wait_for_url("**/leaderboard")
    expect(page.locator("#board-after")).to_have_value("")


def test_the_figures_can_be_downloaded_under_the_filters_twice(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(f"{url}?rater=Ann")
    expect(page.locator(".plot-row")).to_have_count(3)
    for _ in range(2):
        with page.expect_download() as download:
            page.locator("#board-csv").click()
        assert download.value.suggested_filename == "leaderboard.csv"
        assert Path(download.value.path()).read_text() == "model,rating\nbase,1000\n"
    assert arena.leaderboards[-1] == {"rater": "Ann", "blind_only": "true", "style_control": "false", "format": "csv"}


def test_training_on_the_votes_starts_one_job_and_leads_to_it(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(f"{url}?campaign={CAMPAIGN}")
    page.locator("#board-model").select_option(POET)
    page.locator("#board-train").click()
    expect(page.locator(".board-started")).to_contain_text("96 pairs from 120 ratings")
    expect(page.locator(".board-started a")).to_have_attribute("href", "train?job=ftjob-1")
    assert arena.bodies_sent("/fine_tuning_jobs") == [{"model": POET, "campaign": CAMPAIGN}]
    expect(page.locator("#board-model")).to_have_value(POET)


def test_too_few_votes_to_train_on_are_told_in_the_servers_numbers(url: str, arena: Arena, open_page: OpenPage) -> None:
    said = "The votes make 4 pairs, and 10 are wanted."
    arena.refuse["POST", "/fine_tuning_jobs"] = (400, "too_few_pairs", said)
    page = open_page(url)
    page.locator("#board-train").click()
    expect(page.locator(".tl-problem")).to_contain_text(said)
    expect(page.locator("#board-train")).to_be_enabled()


@pytest.mark.parametrize(
    ("query", "words"), [("", "No ratings yet"), ("?rater=Nobody", "No ratings match these filters")]
)
def test_without_votes_the_page_says_where_they_come_from(
    url: str, arena: Arena, open_page: OpenPage, axe: FindFaults, query: str, words: str
) -> None:
    arena.leaderboard = EMPTY
    page = open_page(url + query)
    expect(page.locator(".tl-empty-state")).to_contain_text(words)
    expect(page.locator("#board-train")).to_have_count(0)
    assert axe(page) == []


def test_a_server_that_fails_keeps_the_filters_and_is_asked_again(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(url)
    expect(page.locator(".plot-row")).to_have_count(3)
    arena.refuse["GET", "/v1/leaderboard"] = (500, "server_error", "The database is locked.")
    page.locator("#board-blind_only").uncheck()
    expect(page.locator(".tl-problem")).to_contain_text("The database is locked.")
    arena.refuse.clear()
    page.locator("#board-refresh").click()
    expect(page.locator(".tl-problem")).to_have_count(0)
    expect(page.locator("#board-blind_only")).not_to_be_checked()


def test_it_fits_a_dark_phone_in_chinese(
    url: str, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    page = open_page(url, locale="zh-CN", color_scheme="dark", **PHONE)
    expect(page.locator(".tl-title")).to_have_text("排行榜")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert axe(page) == []
    screenshot(page, "leaderboard-zh-dark-phone")
    name, figure = page.locator(".plot-name").first, page.locator(".plot-value").first
    name.evaluate("name => { name.textContent = 'ft:' + 'long-'.repeat(20); }")
    ends, begins = name.bounding_box(), figure.bounding_box()
    assert ends is not None
    assert begins is not None
    assert ends["x"] + ends["width"] <= begins["x"]  # a longer name is cut off before the figure
