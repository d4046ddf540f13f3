"""`/v1/leaderboard`: votes that count are rated, the others counted with their reasons; filters, scores, CSV."""

from __future__ import annotations

import csv
import io
import itertools
from typing import Any

import httpx
import pytest

from tests.server.arena.stored_comparisons import ONE, OTHER, add_comparison, voted
from tests.server.conftest import Gateway

QUESTION = itertools.count()


def board(gateway: Gateway, **query: Any) -> dict[str, Any]:
    answer = gateway.http.get("/v1/leaderboard", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def model(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [one for one in found["models"] if one["model"] == name]
    return dict(one)


def rate_pair(gateway: Gateway, verdicts: str, *, rater: str = "ann", **comparison: Any) -> None:
    """A vote on a prompt of its own for each letter: l, r, t or b."""
    words = {"l": "left", "r": "right", "t": "tie", "b": "both_bad"}
    for letter in verdicts:
        compared = add_comparison(gateway, prompt=f"Question {next(QUESTION)}", **comparison)
        voted(gateway, compared, words[letter], rater=rater)


@pytest.mark.both_databases
def test_counts_rates_and_order_follow_the_votes(gateway: Gateway) -> None:
    rate_pair(gateway, "llllllrtb")
    rate_pair(gateway, "rrrrrl", rater="bob", models=(OTHER, ONE))
    found = board(gateway)
    assert (found["object"], found["votes"], found["raters"], found["discarded"]) == ("leaderboard", 15, 2, {})
    best, worst = found["models"]
    assert (best["model"], worst["model"], best["group"]) == (ONE, OTHER, worst["group"])
    assert best["lower"] < best["rating"] < best["upper"]
    assert best["rating"] > worst["rating"]
    counts = [best[name] for name in ("votes", "wins", "losses", "ties", "both_bad")]
    assert counts == [15, 11, 2, 1, 1]
    assert best["win_rate"] == pytest.approx(11 / 15, abs=1e-3)
    (pair,) = found["pairs"]
    assert {pair["model_a"], pair["model_b"]} == {ONE, OTHER}
    assert pair["votes"] == 15
    assert pair["lower"] < pair["win_rate_a"] < pair["upper"]
    assert (found["position_bias"]["left_wins"], found["position_bias"]["decided"]) == (7, 13)


@pytest.mark.both_databases
def test_votes_that_do_not_count_are_counted_by_reason(gateway: Gateway) -> None:
    rate_pair(gateway, "lr")
    rate_pair(gateway, "l", finish_reasons=("length", "stop"))
    rate_pair(gateway, "l", left="My name is ChatGPT.")
    rate_pair(gateway, "l", blind=False, models=("base", ONE))
    rate_pair(gateway, "l", models=(ONE, ONE))
    twice = [add_comparison(gateway, prompt="twice") for _ in range(2)]
    for comparison in twice:
        voted(gateway, comparison, rater="bob")
    changed = add_comparison(gateway, prompt="changed")
    first = voted(gateway, changed, rater="cem")
    voted(gateway, changed, "right", rater="cem", supersedes=first["id"])
    undone = voted(gateway, add_comparison(gateway, prompt="undone"), rater="dee")
    gateway.http.post(f"/v1/ratings/{undone['id']}/withdraw", json={"rater": "dee"})
    found = board(gateway)
    assert found["discarded"] == {
        "unfinished": 1, "identity_leak": 1, "not_blind": 2, "same_model": 1, "duplicate": 1,
    }  # fmt: skip
    assert found["votes"] == 3
    open_too = board(gateway, blind_only=False)
    assert (open_too["votes"], "not_blind" in open_too["discarded"]) == (5, False)


def test_new_vote_is_in_the_next_answer_and_equal_questions_are_answered_once(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_pair(gateway, "lr")
    first = board(gateway)
    monkeypatch.setattr("server.arena.leaderboard.boards.rate", lambda *_, **__: pytest.fail("rated again"))
    assert board(gateway) == first
    monkeypatch.undo()
    rate_pair(gateway, "l", rater="bob")
    assert board(gateway)["votes"] == 3


@pytest.mark.both_databases
def test_filters_choose_the_votes(gateway: Gateway) -> None:
    rate_pair(gateway, "llr", campaign_id="camp_1")
    rate_pair(gateway, "r", rater="bob")
    made_at = gateway.http.get("/v1/ratings").json()["data"][0]["created_at"]
    for query, votes in (
        ({"campaign": "camp_1"}, 3),
        ({"campaign": "camp_2"}, 0),
        ({"rater": "bob"}, 1),
        ({"after": made_at + 100}, 0),
        ({"before": made_at + 100}, 4),
        ({"before": 5}, 0),
    ):
        assert board(gateway, **query)["votes"] == votes, query


def test_without_votes_there_is_an_empty_leaderboard(gateway: Gateway) -> None:
    for style_control in (False, True):
        found = board(gateway, style_control=style_control)
        assert (found["votes"], found["models"], found["pairs"], found["discarded"]) == (0, [], [], {})
        assert found["agreement"]["verdict"] == {"alpha": None, "lower": None, "upper": None, "items": 0}
        assert found["position_bias"]["left_rate"] is None


def test_models_that_never_met_have_groups_of_their_own(gateway: Gateway) -> None:
    rate_pair(gateway, "llr")
    rate_pair(gateway, "lr", models=("base", "remote"))
    found = board(gateway)
    assert len({one["group"] for one in found["models"]}) == 2
    (apart,) = [pair for pair in found["pairs"] if {pair["model_a"], pair["model_b"]} == {ONE, "base"}]
    assert (apart["votes"], apart["win_rate_a"], apart["decided"]) == (0, None, False)


def test_base_stands_at_1000(gateway: Gateway) -> None:
    rate_pair(gateway, "lllr", models=(ONE, "base"))
    found = board(gateway)
    assert (found["baseline"], model(found, "base")["rating"]) == ("base", 1000)
    assert model(found, ONE)["rating"] > 1000


def test_scores_go_to_the_model_that_they_are_about(gateway: Gateway) -> None:
    given = (
        ("left", {"left": {"fluency": 5}, "right": {"fluency": 1}}),
        ("right", {"fluency": 3}),  # of the preferred one
        ("tie", {"fluency": 2, "relevance": 4}),  # of both
    )
    for number, (verdict, dimensions) in enumerate(given):
        voted(gateway, add_comparison(gateway, prompt=str(number)), verdict, dimensions=dimensions, unsafe="right")
    found = board(gateway)
    one, other = (model(found, name)["dimensions"] for name in (ONE, OTHER))
    assert (one["fluency"]["votes"], one["fluency"]["mean"]) == (2, 3.5)
    assert (other["fluency"]["votes"], other["fluency"]["mean"]) == (3, 2.0)
    assert (one["relevance"]["mean"], other["relevance"]["votes"]) == (4.0, 1)
    assert (model(found, ONE)["unsafe"], model(found, OTHER)["unsafe"]) == (0, 3)


def test_agreement_counts_answers_that_several_raters_judged_whichever_stood_left(gateway: Gateway) -> None:
    for number, verdict in enumerate(("left", "right", "left", "right")):
        prompt, swapped = f"prompt {number}", "right" if verdict == "left" else "left"
        scores = {"left": {"fluency": 1 + number}, "right": {"fluency": 5 - number}}
        voted(gateway, add_comparison(gateway, prompt=prompt), verdict, rater="ann", dimensions=scores)
        turned = add_comparison(gateway, "the other answer", "the one answer", prompt=prompt, models=(OTHER, ONE))
        scores = {"left": scores["right"], "right": scores["left"]}
        voted(gateway, turned, swapped, rater="bob", dimensions=scores)
    agreement = board(gateway)["agreement"]
    assert (agreement["verdict"]["alpha"], agreement["verdict"]["items"]) == (1, 4)
    assert (agreement["dimensions"]["fluency"]["alpha"], agreement["dimensions"]["fluency"]["items"]) == (1, 8)


@pytest.mark.both_databases
def test_style_control_tells_what_style_does(gateway: Gateway) -> None:
    rate_pair(gateway, "lllllr", left="# Head\n\n- **a** long list\n- of very many words\n", right="short")
    rate_pair(gateway, "rlr", rater="bob", left="brief", right="quite some more words than that")
    assert board(gateway)["style"] is None
    found = board(gateway, style_control=True)
    assert found["style_control"] is True
    assert {"effect", "lower", "upper"} == set(found["style"]["length"])
    assert found["style"]["length"]["effect"] > 0


def test_csv_has_a_row_for_each_model(gateway: Gateway) -> None:
    voted(gateway, add_comparison(gateway), dimensions={"fluency": 4})
    rate_pair(gateway, "lr")
    answer = gateway.http.get("/v1/leaderboard?format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["model"] for row in rows] == [one["model"] for one in board(gateway)["models"]]
    assert rows[0]["fluency"] == "4.0"
    assert answer.headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize(
    ("query", "param"),
    [({"confidence": 1}, "confidence"), ({"after": -1}, "after"), ({"after": "yesterday"}, "after"),
     ({"format": "xml"}, "format"), ({"blind_only": "perhaps"}, "blind_only")],
)  # fmt: skip
def test_wrong_query_is_400_with_its_param(shared_gateway: Gateway, query: dict[str, Any], param: str) -> None:
    refused: httpx.Response = shared_gateway.http.get("/v1/leaderboard", params=query)
    assert (refused.status_code, shared_gateway.error(refused)["param"]) == (400, param)
