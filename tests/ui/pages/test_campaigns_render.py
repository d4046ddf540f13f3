"""The campaigns page: what the form sends, what it objects to, and what one campaign shows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.scripted_arena import campaign_object
from ui.frame.live import Action
from ui.pages.campaigns import render
from ui.pages.campaigns.form import Objection, body_of, new_campaign

FILLED: dict[str, Any] = {
    "name": " Spring ", "models": ["base", "ft:x"], "source": "paste", "prompts": "One?\n\n Two? \n",
    "raters_per_item": "2", "limit": "", "temperature": "0.7", "max_tokens": "512", "dimensions": ["yes"],
}  # fmt: skip
HOSTILE = "<img src=x>"


def test_pasted_lines_become_prompts() -> None:
    assert body_of(Action("create", FILLED)) == {
        "name": "Spring",
        "models": ["base", "ft:x"],
        "prompts": ["One?", "Two?"],
        "raters_per_item": 2,
        "sampling": {"temperature": 0.7, "max_tokens": 512},
        "dimensions": True,
    }


@pytest.mark.parametrize(
    ("fields", "files"), [({"source": "upload"}, {"file": "file-1"}), ({"source": "stored", "stored": "file-1"}, {})]
)
def test_a_file_is_sent_by_its_id(fields: dict[str, str], files: dict[str, str]) -> None:
    body = body_of(Action("create", FILLED | fields | {"limit": "50", "dimensions": []}, files))
    assert (body["prompts_file"], body["limit"], body["dimensions"]) == ("file-1", 50, False)
    assert "prompts" not in body


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"name": " "}, "no_name"),
        ({"models": ["base"]}, "few_chosen"),
        ({"models": [str(number) for number in range(9)]}, "few_chosen"),
        ({"prompts": " \n"}, "no_prompts"),
        ({"source": "upload"}, "no_file"),
        ({"source": "stored", "stored": ""}, "no_file"),
        ({"raters_per_item": ""}, "no_number"),
        ({"temperature": "warm"}, "no_number"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_sent(fields: dict[str, Any], key: str) -> None:
    with pytest.raises(Objection) as objection:
        body_of(Action("create", FILLED | fields))
    assert objection.value.key == key


def test_a_refused_upload_tells_the_servers_reason() -> None:
    with pytest.raises(Objection) as objection:
        body_of(Action("create", FILLED | {"source": "upload"}, refused={"file": "too large"}))
    assert objection.value.values == {"reason": "too large"}


@pytest.mark.parametrize("reason", ["network", ""])
def test_an_upload_that_broke_off_says_so_in_the_readers_language(reason: str) -> None:
    with pytest.raises(Objection) as objection:
        body_of(Action("create", FILLED | {"source": "upload"}, refused={"file": reason}))
    assert objection.value.key == "upload_broken"


def test_with_one_model_the_form_says_what_is_missing() -> None:
    shown = new_campaign(["base"], [], "en", 0)
    assert "available: 1" in shown
    assert "<form" not in shown


def test_a_campaign_with_votes_cant_be_deleted_from_the_page() -> None:
    fresh = campaign_object("c", "c", ["base", "ft:x"])
    assert 'data-do="delete"' in render.progress(fresh, [], 0.0, "en")
    voted = fresh | {"votes": {"done": 1, "total": 40}}
    assert 'data-do="delete"' not in render.progress(voted, [], 0.0, "en")


def test_what_holds_a_campaign_up_and_what_failed_is_told() -> None:
    answers = {"done": 3, "total": 40, "failed": 2}
    campaign = campaign_object("c", "c", ["base", "ft:x"], error={"message": "The engine is down."}, answers=answers)
    shown = render.progress(campaign, [{"model": "ft:x", "error": {"message": "too long"}}], 0.0, "en")
    assert "The engine is down." in shown
    assert "Failed answers: 2" in shown
    assert "too long" in shown


@pytest.mark.parametrize(
    ("invitation", "state", "has_button"),
    [
        ({"expires_at": 100, "revoked_at": None}, "Valid", True),
        ({"expires_at": 50, "revoked_at": None}, "Expired", False),
        ({"expires_at": 100, "revoked_at": 40}, "Revoked", False),
    ],
)
def test_only_a_valid_invitation_can_be_revoked(invitation: dict[str, Any], state: str, has_button: bool) -> None:
    campaign = campaign_object("c", "c", ["base", "ft:x"])
    listed = [{"id": "inv_1", "rater": "Ann", "revoked_at": None} | invitation]
    shown = render.invitations(campaign, listed, [], 0, 60.0, "en")
    assert f">{state}<" in shown
    assert ("data-invitation" in shown) is has_button


def test_foreign_words_are_escaped() -> None:
    campaign = campaign_object(
        HOSTILE, HOSTILE, [HOSTILE, "base"], raters=[{"rater": HOSTILE, "votes": 1}], votes={"done": 1, "total": 2},
        error={"message": HOSTILE}, answers={"done": 1, "total": 2, "failed": 1},
    )  # fmt: skip
    invitation = {"id": HOSTILE, "rater": HOSTILE, "expires_at": 100, "revoked_at": None, "path": f"/rate?{HOSTILE}"}
    failed = [{"model": HOSTILE, "error": {"message": HOSTILE}}]
    shown = "".join(
        [
            render.heading(campaign, "en"),
            render.listing([campaign], "en"),
            render.progress(campaign, failed, 0.0, "en"),
            render.results(campaign, {"alpha": 0.5, "items": 3}, "en"),
            render.invitations(campaign, [invitation], [invitation], 1, 0.0, "en"),
            new_campaign([HOSTILE, "base"], [{"id": HOSTILE, "filename": HOSTILE}], "en", 0),
        ]
    )
    assert "&lt;img src=x&gt;" in shown
    assert "<img" not in shown
