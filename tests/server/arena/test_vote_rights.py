"""Whose pair it is and whose vote: a rater's name, which is free text, opens neither what came by an invitation nor
what another key has cast; and whoever was shown the names votes blind under no other name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from server.access.keys import create_key
from tests.server.aliases.test_aliases import add_version
from tests.server.arena.stored_comparisons import add_comparison, vote, voted
from tests.server.arena.test_campaigns import CAPTAIN, as_named, assign, get, make_open
from tests.server.arena.test_invitations import ask, invite, next_pair
from tests.server.conftest import Gateway, StartGateway
from tests.serving.adapters.adapters_on_disk import write_base

LEFT = {"verdict": "left"}


@pytest.fixture
def gateway(start_gateway: StartGateway, tmp_path: Path) -> Gateway:
    write_base(tmp_path / "base")
    gateway = start_gateway(as_named)
    add_version(gateway, CAPTAIN)
    return gateway


def key(gateway: Gateway) -> dict[str, str]:
    """The header of a new key."""
    with gateway.database.session() as session:
        return {"Authorization": f"Bearer {create_key(session, 'a rater')[1]}"}


def refusal(gateway: Gateway, response: httpx.Response) -> tuple[int, str]:
    return response.status_code, gateway.error(response)["code"]


def change(gateway: Gateway, rating: dict[str, Any], rater: str, headers: dict[str, str] | None = None) -> Any:
    """The answers to an attempt to supersede the vote, and to one to withdraw it."""
    path, body = f"/v1/comparisons/{rating['comparison_id']}/ratings", LEFT | {"supersedes": rating["id"]}
    return [
        gateway.http.post(path, json=body | {"rater": rater}, headers=headers),
        gateway.http.post(f"/v1/ratings/{rating['id']}/withdraw", json={"rater": rater}, headers=headers),
    ]


@pytest.mark.both_databases
def test_pair_given_to_an_invited_rater_is_voted_on_by_nobody_else_and_stays_blind(gateway: Gateway) -> None:
    campaign = make_open(gateway, prompts=["one"], raters_per_item=1)
    ann = invite(gateway, campaign)
    pair = next_pair(gateway, ann)
    assert refusal(gateway, vote(gateway, pair["id"], rater="bob")) == (409, "assigned_to_another")
    assert refusal(gateway, vote(gateway, pair["id"], rater="ann")) == (403, "invitation_required")
    assert ask(gateway, ann, "GET", f"/v1/comparisons/{pair['id']}").json() == pair
    assert get(gateway, campaign)["votes"]["done"] == 0
    assert ask(gateway, ann, "POST", f"/v1/comparisons/{pair['id']}/ratings", LEFT).json()["names_seen"] is False


def test_pair_given_to_a_named_rater_is_that_raters(gateway: Gateway) -> None:
    pair = assign(gateway, make_open(gateway), "ann")["comparison"]
    assert refusal(gateway, vote(gateway, pair["id"], rater="bob")) == (409, "assigned_to_another")
    assert voted(gateway, pair["id"], rater="ann")["names_seen"] is False


def test_vote_by_an_invitation_is_changed_by_an_invitation_of_its_rater_alone(gateway: Gateway) -> None:
    campaign = make_open(gateway)
    ann = invite(gateway, campaign)
    path = f"/v1/comparisons/{next_pair(gateway, ann)['id']}/ratings"
    rating = ask(gateway, ann, "POST", path, LEFT).json()
    answers = change(gateway, rating, "ann")
    assert refusal(gateway, answers[0]) == (403, "invitation_required")
    assert refusal(gateway, answers[1]) == (403, "vote_of_another")
    new_link = invite(gateway, campaign)
    changed = ask(gateway, new_link, "POST", path, {"verdict": "tie", "supersedes": rating["id"]})
    assert changed.status_code == 201, changed.text
    undone = ask(gateway, ann, "POST", f"/v1/ratings/{changed.json()['id']}/withdraw", {})
    assert undone.status_code == 201, undone.text


@pytest.mark.both_databases
def test_vote_cast_with_a_key_is_changed_with_that_key_alone(gateway: Gateway) -> None:
    one, other = key(gateway), key(gateway)
    path = f"/v1/comparisons/{add_comparison(gateway)}/ratings"
    rating = gateway.http.post(path, json=LEFT | {"rater": "ann"}, headers=one).json()
    for answer in change(gateway, rating, "ann", other):
        assert refusal(gateway, answer) == (403, "vote_of_another")
    superseding, too_late = change(gateway, rating, "ann", one)
    assert (superseding.status_code, refusal(gateway, too_late)) == (201, (409, "already_superseded"))


def test_vote_of_a_server_without_keys_stays_its_raters_when_keys_are_made(gateway: Gateway) -> None:
    rating = voted(gateway, add_comparison(gateway), rater="ann")
    superseding, _ = change(gateway, rating, "ann", key(gateway))
    assert superseding.status_code == 201, superseding.text


def test_names_that_one_vote_has_shown_are_seen_by_every_later_voter(gateway: Gateway) -> None:
    comparison = add_comparison(gateway)
    seen = [voted(gateway, comparison, rater=rater)["names_seen"] for rater in ("ann", "ann's second name")]
    assert seen == [False, True]
    board = gateway.http.get("/v1/leaderboard").json()
    assert (board["votes"], board["discarded"]) == (1, {"not_blind": 1})
