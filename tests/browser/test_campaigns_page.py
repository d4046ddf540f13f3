"""The campaigns page in a real browser: from the form to the closed campaign, and what can go wrong on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.arena_example import LEADERBOARD
from tests.browser.conftest import FindFaults, OpenPage
from tests.browser.scripted import BASE, CAPTAIN, POET
from tests.browser.scripted_arena import Arena, campaign_object

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
Screenshot = Callable[[Page, str], None]


@pytest.fixture
def arena(served_arena: tuple[str, Arena]) -> Arena:
    """The module's server as it was at first."""
    _, arena = served_arena
    vars(arena).update(vars(Arena(leaderboard=LEADERBOARD)))
    return arena


@pytest.fixture
def url(served_arena: tuple[str, Arena], arena: Arena) -> str:
    return f"{served_arena[0]}/campaigns"


def fill(page: Page, name: str = "Spring") -> None:
    page.locator("#camp-name").fill(name)
    page.locator("#camp-model-0").check()
    page.locator("#camp-model-1").check()
    page.locator("#camp-prompts").fill("One?\n\nTwo?")


def test_a_campaign_goes_from_the_form_to_its_close(
    url: str, arena: Arena, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    page = open_page(url)
    expect(page.locator(".tl-empty-state")).to_contain_text("No campaigns yet")
    assert axe(page) == []
    fill(page)
    page.locator("#camp-create").click()
    page.wait_for_url("**/campaigns?campaign=camp_1")
    expect(page.locator(".tl-notice")).to_contain_text("Campaign created.")
    assert arena.bodies_sent("/v1/campaigns") == [
        {
            "name": "Spring", "models": [BASE, CAPTAIN], "prompts": ["One?", "Two?"], "raters_per_item": 2,
            "sampling": {"temperature": 0.7, "max_tokens": 512}, "dimensions": True,
        }
    ]  # fmt: skip
    arena.campaigns["camp_1"] |= {"status": "open", "answers": {"done": 40, "total": 40, "failed": 0}}
    expect(page.locator(".camp-chip")).to_have_text("Open")  # by itself

    page.locator("#camp-rater").fill("Ann")
    page.locator("#camp-invite").click()
    expect(page.locator(".camp-link code")).to_have_text(f"{url.removesuffix('/campaigns')}/rate?invite=tl-invite-1")
    expect(page.locator("#camp-rater")).to_have_value("")
    assert axe(page) == []
    screenshot(page, "campaigns-en-light")

    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#camp-revoke-inv_1").click()
    expect(page.locator(".camp-state")).to_have_text("Revoked")
    expect(page.locator(".camp-link")).to_have_count(0)
    page.locator("#camp-close").click()
    expect(page.locator(".camp-chip")).to_have_text("Closed")
    page.locator("#camp-reopen").click()
    expect(page.locator(".camp-chip")).to_have_text("Open")
    page.locator("#camp-delete").click()
    expect(page.locator("#camp-create")).to_be_visible()
    page.wait_for_url("**/campaigns")
    assert arena.campaigns == {}


def test_the_half_filled_form_survives_a_refresh_and_a_refusal(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(url)
    fill(page, "Night watch")
    page.reload()
    expect(page.locator("#camp-name")).to_have_value("Night watch")
    expect(page.locator("#camp-model-1")).to_be_checked()
    said = "The prompts have 2 error(s):\nline 3: the prompt is empty"
    arena.refuse["POST", "/v1/campaigns"] = (400, "invalid_prompts", said)
    page.locator("#camp-create").click()
    expect(page.locator(".tl-problem")).to_contain_text("line 3: the prompt is empty")
    expect(page.locator("#camp-prompts")).to_have_value("One?\n\nTwo?")
    arena.refuse.clear()
    page.locator("#camp-create").click()
    expect(page.locator("#camp-rater")).to_be_visible()
    page.goto(url)
    expect(page.locator("#camp-name")).to_have_value("")


def test_what_is_missing_is_said_before_anything_is_sent(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(url)
    page.locator("#camp-create").click()
    expect(page.locator(".tl-notice")).to_contain_text("Enter a campaign name.")
    page.locator("#camp-name").fill("Spring")
    page.locator("#camp-create").click()
    expect(page.locator(".tl-notice")).to_contain_text("Choose two to eight models.")
    assert arena.bodies_sent("/v1/campaigns") == []


def test_prompts_can_come_from_what_a_job_held_back(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(url)
    fill(page)
    page.locator("#camp-source-stored").check()
    expect(page.locator("#camp-prompts")).to_be_hidden()
    expect(page.locator("#camp-stored")).to_have_value("file-holdout")
    page.locator("#camp-limit").fill("50")
    page.locator("#camp-create").click()
    expect(page.locator("#camp-rater")).to_be_visible()
    (body,) = arena.bodies_sent("/v1/campaigns")
    assert (body["prompts_file"], body["limit"]) == ("file-holdout", 50)
    assert "prompts" not in body


def test_a_running_campaign_shows_failures_agreement_and_who_voted(
    url: str, arena: Arena, open_page: OpenPage, axe: FindFaults
) -> None:
    arena.campaigns["camp_1"] = campaign_object(
        "camp_1", "Harbour", [BASE, CAPTAIN, POET], answers={"done": 59, "total": 60, "failed": 1},
        votes={"done": 31, "total": 120}, raters=[{"rater": "Ann", "votes": 19}, {"rater": "Bo", "votes": 12}],
    )  # fmt: skip
    page = open_page(url)
    page.get_by_role("link", name="Harbour").click()
    expect(page.locator(".camp-raters")).to_contain_text("Ann 19")
    expect(page.locator(".tl-page-campaigns")).to_contain_text("α 0.71 (64 pairs rated by two or more)")
    expect(page.locator(".tl-page-campaigns")).to_contain_text("Failed answers: 1")
    expect(page.locator("#camp-delete")).to_have_count(0)
    assert axe(page) == []
    arena.campaigns["camp_1"]["votes"] = {"done": 32, "total": 120}
    expect(page.locator(".camp-two")).to_contain_text("32 of 120")


def test_looking_again_leaves_what_is_being_typed_alone(url: str, arena: Arena, open_page: OpenPage) -> None:
    arena.campaigns["camp_1"] = campaign_object("camp_1", "Harbour", [BASE, CAPTAIN], status="generating")
    page = open_page(f"{url}?campaign=camp_1")
    page.locator("#camp-rater").fill("An")
    arena.campaigns["camp_1"]["answers"] = {"done": 30, "total": 40, "failed": 0}
    expect(page.locator(".camp-two")).to_contain_text("30 of 40")
    page.keyboard.type("n")
    expect(page.locator("#camp-rater")).to_have_value("Ann")


def test_an_unknown_campaign_is_told_and_an_unreachable_server_too(url: str, arena: Arena, open_page: OpenPage) -> None:
    page = open_page(f"{url}?campaign=camp_gone")
    expect(page.locator(".tl-problem")).to_contain_text("No campaign has the id 'camp_gone'.")
    arena.refuse["GET", "/v1/campaigns"] = (500, "server_error", "The database is locked.")
    page.goto(url)
    expect(page.locator(".tl-problem")).to_contain_text("The database is locked.")


def test_it_fits_a_dark_phone_in_chinese(
    url: str, arena: Arena, open_page: OpenPage, screenshot: Screenshot, axe: FindFaults
) -> None:
    arena.campaigns["camp_1"] = campaign_object("camp_1", "灯塔", [BASE, CAPTAIN, POET])
    page = open_page(url, locale="zh-CN", color_scheme="dark", **PHONE)
    expect(page.locator(".tl-title")).to_have_text("评测活动")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert axe(page) == []
    screenshot(page, "campaigns-zh-dark-phone")
