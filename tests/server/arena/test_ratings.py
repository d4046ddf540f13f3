"""Votes are superseded and taken back, never changed; each is told with what became of it and why it doesn't count."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import update

from server.storage.tables import RatingRow
from tests.server.arena.stored_comparisons import ONE, OTHER, add_comparison, vote, voted
from tests.server.conftest import Gateway, StartGateway


def ratings(gateway: Gateway, **query: Any) -> list[dict[str, Any]]:
    page = gateway.http.get("/v1/ratings", params=query)
    assert page.status_code == 200, page.text
    data: list[dict[str, Any]] = page.json()["data"]
    return data


def withdraw(gateway: Gateway, rating_id: str, **body: Any) -> Any:
    return gateway.http.post(f"/v1/ratings/{rating_id}/withdraw", json=body)


def make_older(gateway: Gateway, rating_id: str, seconds: int) -> None:
    older = update(RatingRow).where(RatingRow.id == rating_id).values(created_at=RatingRow.created_at - seconds)
    with gateway.database.session() as session:
        session.execute(older)


def test_second_vote_is_409_that_names_the_first_and_how_to_supersede_it(gateway: Gateway) -> None:
    comparison = add_comparison(gateway)
    first = voted(gateway, comparison, rater="ann")
    refused = vote(gateway, comparison, "right", rater="ann")
    error = gateway.error(refused)
    assert (refused.status_code, error["code"]) == (409, "already_rated")
    assert first["id"] in error["message"]
    assert "supersedes" in error["message"]


@pytest.mark.both_databases
def test_superseding_vote_stands_and_the_first_stays_readable(gateway: Gateway) -> None:
    comparison = add_comparison(gateway)
    first = voted(gateway, comparison, "left", rater="ann", comment="hm")
    second = voted(gateway, comparison, "right", rater="ann", supersedes=first["id"])
    assert (second["supersedes"], second["names_seen"], first["names_seen"]) == (first["id"], True, False)
    assert ratings(gateway) == [second]
    everything = {rating["id"]: rating for rating in ratings(gateway, current_only=False)}
    assert everything[first["id"]] == first | {"superseded_by": second["id"]}
    assert ratings(gateway, blind_only=True) == []


def test_superseded_and_foreign_votes_cannot_be_superseded(gateway: Gateway) -> None:
    comparison = add_comparison(gateway)
    first = voted(gateway, comparison, rater="ann")
    second = voted(gateway, comparison, rater="ann", supersedes=first["id"])
    again = vote(gateway, comparison, rater="ann", supersedes=first["id"])
    assert (again.status_code, gateway.error(again)["code"]) == (409, "already_superseded")
    assert second["id"] in gateway.error(again)["message"]
    for rater, other in (("bob", comparison), ("ann", add_comparison(gateway))):
        foreign = vote(gateway, other, rater=rater, supersedes=second["id"])
        assert (foreign.status_code, gateway.error(foreign)["code"]) == (404, "rating_not_found")


@pytest.mark.both_databases
def test_withdrawn_vote_is_none_and_its_rater_may_vote_again(gateway: Gateway) -> None:
    comparison = add_comparison(gateway)
    first = voted(gateway, comparison, rater="ann")
    answer = withdraw(gateway, first["id"], rater="ann")
    entry = answer.json()
    assert (answer.status_code, entry["verdict"], entry["supersedes"]) == (201, "withdrawn", first["id"])
    assert (entry["preferred_model"], entry["discarded"]) == (None, None)
    assert ratings(gateway) == []
    assert gateway.error(vote(gateway, comparison, rater="ann"))["code"] == "already_rated"
    anew = voted(gateway, comparison, "right", rater="ann", supersedes=entry["id"])
    assert anew["names_seen"] is True
    assert ratings(gateway) == [anew]


def test_undo_is_for_its_rater_and_for_a_minute(gateway: Gateway) -> None:
    late, mine = (voted(gateway, add_comparison(gateway, prompt=prompt), rater="ann") for prompt in "ab")
    make_older(gateway, late["id"], 62)
    too_late = withdraw(gateway, late["id"], rater="ann")
    assert (too_late.status_code, gateway.error(too_late)["code"]) == (409, "undo_too_late")
    assert withdraw(gateway, mine["id"], rater="bob").status_code == 404
    entry = withdraw(gateway, mine["id"], rater="ann").json()
    for rating_id, code in ((mine["id"], "already_superseded"), (entry["id"], "already_withdrawn")):
        assert gateway.error(withdraw(gateway, rating_id, rater="ann"))["code"] == code


def test_window_for_undo_is_a_setting(start_gateway: StartGateway) -> None:
    gateway = start_gateway(undo_window_s=600)
    rating = voted(gateway, add_comparison(gateway))
    make_older(gateway, rating["id"], 500)
    assert gateway.http.post(f"/v1/ratings/{rating['id']}/withdraw").status_code == 201


@pytest.mark.both_databases
def test_equal_votes_at_once_make_one_and_the_others_learn_its_id(gateway: Gateway) -> None:
    comparison = add_comparison(gateway)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: vote(gateway, comparison, rater="ann"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    (made,) = (answer.json()["id"] for answer in answers if answer.status_code == 201)
    assert all(made in answer.text for answer in answers)
    assert [rating["id"] for rating in ratings(gateway, current_only=False)] == [made]


@pytest.mark.both_databases
def test_undo_and_change_at_once_leave_one_vote_standing_at_most(gateway: Gateway) -> None:
    comparison = add_comparison(gateway)
    first = voted(gateway, comparison, rater="ann")
    with ThreadPoolExecutor(8) as pool:
        changes = [
            pool.submit(vote, gateway, comparison, "right", rater="ann", supersedes=first["id"])
            if number % 2
            else pool.submit(withdraw, gateway, first["id"], rater="ann")
            for number in range(8)
        ]
    assert sorted(change.result().status_code for change in changes) == [201] + [409] * 7
    assert len(ratings(gateway, current_only=False)) == 2


@pytest.mark.both_databases
def test_votes_that_do_not_count_say_why(gateway: Gateway) -> None:
    cut = voted(gateway, add_comparison(gateway, finish_reasons=("stop", "length")))
    leak = voted(gateway, add_comparison(gateway, left="I am ChatGPT, hello."))
    asked = voted(gateway, add_comparison(gateway, left="I am ChatGPT, hello.", prompt="Are you ChatGPT?"))
    first = voted(gateway, add_comparison(gateway, prompt="again"))
    swapped = add_comparison(gateway, "the other answer", "the one answer", prompt="again", models=(OTHER, ONE))
    repeated = voted(gateway, swapped)
    somebody = voted(gateway, swapped, rater="bob")
    why = [rating["discarded"] for rating in (cut, leak, asked, first, somebody)]
    assert why == ["unfinished", "identity_leak", None, None, None]
    listed = {rating["id"]: rating["discarded"] for rating in ratings(gateway)}
    assert (listed[first["id"]], listed[repeated["id"]]) == (None, "duplicate")
    withdraw(gateway, first["id"])
    assert {rating["id"]: rating["discarded"] for rating in ratings(gateway)}[repeated["id"]] is None


@pytest.mark.both_databases
def test_repetition_is_one_among_the_votes_that_are_asked_for(gateway: Gateway) -> None:
    for campaign in ("camp_1", "camp_2"):
        voted(gateway, add_comparison(gateway, campaign_id=campaign), rater="ann")
    open_one = add_comparison(gateway, prompt="open", blind=False)
    voted(gateway, open_one, rater="ann")
    voted(gateway, add_comparison(gateway, prompt="open"), rater="ann")
    boards = [
        gateway.http.get("/v1/leaderboard", params=query).json()
        for query in ({}, {"campaign": "camp_1"}, {"campaign": "camp_2"}, {"blind_only": False})
    ]
    assert [(board["votes"], board["discarded"]) for board in boards] == [
        (2, {"duplicate": 1, "not_blind": 1}), (1, {}), (1, {}), (2, {"duplicate": 2}),
    ]  # fmt: skip
    assert [rating["discarded"] for rating in ratings(gateway, campaign="camp_2")] == [None]


@pytest.mark.both_databases
def test_whoever_pages_on_meets_every_later_vote(gateway: Gateway) -> None:
    last = voted(gateway, add_comparison(gateway), rater="rater")["id"]
    for number in range(12):  # of one second mostly, and of random ids
        made = voted(gateway, add_comparison(gateway, prompt=str(number)), rater="rater")["id"]
        assert [rating["id"] for rating in ratings(gateway, after=last, order="asc")] == [made]
        last = made


def test_page_holds_a_hundred_votes_at_most(gateway: Gateway) -> None:
    refused = gateway.http.get("/v1/ratings?limit=101")
    assert (refused.status_code, gateway.error(refused)["param"]) == (400, "limit")


@pytest.mark.both_databases
def test_list_is_narrowed_by_campaign_rater_model_and_blindness(gateway: Gateway) -> None:
    campaign = voted(gateway, add_comparison(gateway, campaign_id="camp_1"), rater="ann")
    open_ = voted(gateway, add_comparison(gateway, prompt="b", blind=False, models=("base", ONE)), rater="bob")
    for query, found in (
        ({"campaign": "camp_1"}, [campaign]),
        ({"rater": "bob"}, [open_]),
        ({"model": OTHER}, [campaign]),
        ({"model": "base"}, [open_]),
        ({"blind_only": True}, [campaign]),
        ({"campaign": "camp_2"}, []),
    ):
        assert ratings(gateway, **query) == found, query
    assert (campaign["campaign"], open_["campaign"], open_["names_seen"]) == ("camp_1", None, True)


@pytest.mark.parametrize(
    "dimensions",
    [{"left": {"fluency": 4, "relevance": 1}, "right": {"fluency": 2}}, {"left": {"helpfulness": 5}}, {"fluency": 3}],
)
def test_scores_are_of_each_side_or_of_the_preferred(gateway: Gateway, dimensions: dict[str, Any]) -> None:
    assert voted(gateway, add_comparison(gateway), dimensions=dimensions)["dimensions"] == dimensions


@pytest.mark.parametrize(
    "dimensions",
    [{"left": {"fluency": 6}}, {"left": {"beauty": 1}}, {"left": 3}, {"middle": {"fluency": 1}},
     {"left": {"fluency": 1}, "fluency": 2}, {"fluency": "3"}],
)  # fmt: skip
def test_scores_that_mean_nothing_are_400(shared_gateway: Gateway, dimensions: dict[str, Any]) -> None:
    refused = vote(shared_gateway, add_comparison(shared_gateway), dimensions=dimensions)
    assert (refused.status_code, shared_gateway.error(refused)["param"]) == (400, "dimensions")


def test_more_than_two_sides_cannot_be_voted_on(gateway: Gateway) -> None:
    third = {"model": "base", "content": "x", "finish_reason": "stop", "completion_tokens": 1}
    refused = vote(gateway, add_comparison(gateway, others={"third": third}, blind=False))
    assert (refused.status_code, gateway.error(refused)["code"]) == (400, "not_a_pair")


@pytest.mark.parametrize("path", ["/v1/comparisons/{}/ratings", "/v1/ratings/{}/withdraw"])
@pytest.mark.parametrize("identifier", ["cmp_none", "%00", "x" * 300, "..%2F..%2Fetc"])
def test_what_is_not_there_is_404(shared_gateway: Gateway, path: str, identifier: str) -> None:
    body = {"verdict": "left"} if "comparisons" in path else {}
    assert shared_gateway.http.post(path.format(identifier), json=body).status_code == 404
