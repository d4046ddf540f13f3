"""An invitation opens the rating of one campaign's pairs in one rater's name, and nothing else."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from server.access.keys import create_key
from server.storage.tables import CampaignInvitationRow
from tests.server.aliases.test_aliases import add_version
from tests.server.arena.test_campaigns import CAPTAIN, as_named, make_open
from tests.server.conftest import Gateway, StartGateway
from tests.serving.adapters.adapters_on_disk import write_base

BEARER = "Authorization"


@pytest.fixture
def gateway(start_gateway: StartGateway, tmp_path: Path) -> Gateway:
    write_base(tmp_path / "base")
    gateway = start_gateway(as_named)
    add_version(gateway, CAPTAIN)
    return gateway


def invite(gateway: Gateway, campaign: dict[str, Any], rater: str = "ann", **body: Any) -> dict[str, Any]:
    response = gateway.http.post(f"/v1/campaigns/{campaign['id']}/invitations", json={"rater": rater} | body)
    assert response.status_code == 201, response.text
    invitation: dict[str, Any] = response.json()
    return invitation


def ask(gateway: Gateway, invitation: dict[str, Any], method: str, path: str, body: Any = None) -> httpx.Response:
    return gateway.http.request(method, path, json=body, headers={BEARER: f"Bearer {invitation['token']}"})


def next_pair(gateway: Gateway, invitation: dict[str, Any]) -> dict[str, Any]:
    response = ask(gateway, invitation, "POST", f"/v1/campaigns/{invitation['campaign']}/assignments")
    assert response.status_code == 200, response.text
    comparison: dict[str, Any] = response.json()["comparison"]
    return comparison


def test_invited_rater_judges_pair_after_pair_in_their_own_name(gateway: Gateway) -> None:
    invitation = invite(gateway, make_open(gateway))
    assert invitation["path"] == f"/rate?invite={invitation['token']}"
    told = ask(gateway, invitation, "GET", "/v1/invitation").json()
    assert (told["rater"], told["campaign"]["status"], told["done"], told["remaining"]) == ("ann", "open", 0, 2)
    pair = next_pair(gateway, invitation)
    assert pair["left"]["model"] is None
    assert ask(gateway, invitation, "GET", f"/v1/comparisons/{pair['id']}").json() == pair
    vote = {"verdict": "left", "rater": "somebody else"}
    rating = ask(gateway, invitation, "POST", f"/v1/comparisons/{pair['id']}/ratings", vote).json()
    assert (rating["rater"], rating["blind"]) == ("ann", True)
    undone = ask(gateway, invitation, "POST", f"/v1/ratings/{rating['id']}/withdraw", {})
    assert undone.status_code == 201, undone.text
    again = vote | {"supersedes": undone.json()["id"]}
    assert ask(gateway, invitation, "POST", f"/v1/comparisons/{pair['id']}/ratings", again).status_code == 201
    assert ask(gateway, invitation, "GET", "/v1/invitation").json()["done"] == 1


def test_invitation_opens_nothing_else(gateway: Gateway) -> None:
    campaign, other = make_open(gateway), make_open(gateway)
    ann, bob, stranger = invite(gateway, campaign), invite(gateway, campaign, "bob"), invite(gateway, other)
    of_bob, of_stranger = next_pair(gateway, bob), next_pair(gateway, stranger)
    free = {"messages": [{"role": "user", "content": "hi"}], "models": ["base", "base"]}
    open_one = gateway.http.post("/v1/comparisons", json=free).json()["id"]
    vote = {"verdict": "left"}
    rating = ask(gateway, bob, "POST", f"/v1/comparisons/{of_bob['id']}/ratings", vote).json()["id"]
    for method, path in (
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/comparisons"),
        ("GET", "/v1/ratings"),
        ("GET", "/v1/ratings/export"),
        ("GET", "/v1/leaderboard"),
        ("GET", "/v1/campaigns"),
        ("GET", f"/v1/campaigns/{campaign['id']}"),
        ("GET", f"/v1/campaigns/{campaign['id']}/answers"),
        ("POST", f"/v1/campaigns/{campaign['id']}/close"),
        ("POST", f"/v1/campaigns/{campaign['id']}/invitations"),
        ("POST", f"/v1/campaigns/{other['id']}/assignments"),
        ("GET", f"/v1/comparisons/{of_bob['id']}"),
        ("POST", f"/v1/comparisons/{of_bob['id']}/ratings"),
        ("POST", f"/v1/comparisons/{of_stranger['id']}/ratings"),
        ("POST", f"/v1/comparisons/{open_one}/ratings"),
        ("GET", f"/v1/comparisons/{open_one}"),
        ("GET", "/v1/comparisons/cmp_none"),
        ("POST", f"/v1/ratings/{rating}/withdraw"),
        ("GET", "/metrics"),
        ("DELETE", f"/v1/models/{CAPTAIN}"),
    ):
        response = ask(gateway, ann, method, path, vote if method == "POST" else None)
        assert response.status_code == 403, (method, path, response.text)
        assert gateway.error(response)["code"] == "invitation_only_rates"


def test_invitation_works_where_keys_are_wanted_and_is_none(gateway: Gateway) -> None:
    invitation = invite(gateway, make_open(gateway))
    with gateway.database.session() as session:
        create_key(session, "admin")
    assert next_pair(gateway, invitation)
    assert gateway.http.get("/v1/models", headers={BEARER: f"Bearer {invitation['token']}"}).status_code == 403


@pytest.mark.parametrize("end", ["revoked", "expired", "deleted", "mistyped"])
def test_invitation_that_ended_is_401_with_why(gateway: Gateway, end: str) -> None:
    campaign = make_open(gateway)
    invitation = invite(gateway, campaign)
    if end == "revoked":
        path = f"/v1/campaigns/{campaign['id']}/invitations"
        assert gateway.http.delete(f"{path}/{invitation['id']}").json()["deleted"] is True
        (listed,) = gateway.http.get(path).json()["data"]
        assert listed["revoked_at"] is not None
    elif end == "expired":
        with gateway.database.session() as session:
            session.execute(update(CampaignInvitationRow).values(expires_at=1))
    elif end == "deleted":
        assert gateway.http.delete(f"/v1/campaigns/{campaign['id']}").status_code == 200
    else:
        invitation["token"] += "x"
    response = ask(gateway, invitation, "GET", "/v1/invitation")
    assert response.status_code == 401
    assert ("mistyped" if end == "deleted" else end) in gateway.error(response)["message"]


def test_token_is_shown_once_stored_as_its_hash_and_never_logged(
    gateway: Gateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = make_open(gateway)
    with caplog.at_level(logging.INFO, logger="server"):
        invitation = invite(gateway, campaign)
        next_pair(gateway, invitation)
        ask(gateway, invitation, "GET", "/v1/models")
    token = invitation["token"]
    assert len(token.removeprefix("tl-invite-")) >= 43
    assert token not in gateway.http.get(f"/v1/campaigns/{campaign['id']}/invitations").text
    assert token not in "".join(sqlite3.connect(tmp_path / "data" / "tuneloop.db").iterdump())
    assert token not in caplog.text


def test_key_is_no_invitation(gateway: Gateway) -> None:
    response = gateway.http.get("/v1/invitation")
    assert (response.status_code, gateway.error(response)["code"]) == (403, "invitation_required")


def test_invitation_that_is_not_there_cannot_be_revoked(gateway: Gateway) -> None:
    response = gateway.http.delete(f"/v1/campaigns/{make_open(gateway)['id']}/invitations/inv_none")
    assert (response.status_code, gateway.error(response)["code"]) == (404, "invitation_not_found")
