"""Comparisons of two to four models, of conversations that went apart, and of pairs that the server draws."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from server.arena.comparisons.pair_draw import draw
from server.arena.comparisons.pair_votes import PairCounts
from tests.server.aliases.test_aliases import add_version
from tests.server.arena.test_campaigns import nested
from tests.server.arena.test_comparisons_and_ratings import QUESTION, events
from tests.server.conftest import Gateway, StartGateway
from tests.server.fake_engine import FakeAnswer, streamed
from tests.server.versions.test_checkpoint_permissions import CHECKPOINT
from tests.serving.adapters.adapters_on_disk import write_base

CAPTAIN = "ft:base:personal:captain:aaaaaaaa"
POET = "ft:base:personal:poet:bbbbbbbb"
COOK = "ft:base:personal:cook:cccccccc"
SIDES = ("left", "right", "third", "fourth")


def as_named(body: dict[str, Any]) -> FakeAnswer:
    """An answer that tells whose it is, and to what."""
    return streamed(body["model"], body["model"], " says ", body["messages"][-1]["content"])


@pytest.fixture
def gateway(start_gateway: StartGateway, tmp_path: Path) -> Gateway:
    write_base(tmp_path / "base")
    gateway = start_gateway(as_named)
    for name in (CAPTAIN, POET, COOK):
        add_version(gateway, name)
    return gateway


def compare(gateway: Gateway, **body: Any) -> dict[str, Any]:
    response = gateway.http.post("/v1/comparisons", json=body)
    assert response.status_code == 201, response.text
    comparison: dict[str, Any] = response.json()
    return comparison


def test_four_models_answer_on_four_sides_in_their_order(gateway: Gateway) -> None:
    models = ["base", COOK, CAPTAIN, POET]
    comparison = compare(gateway, messages=QUESTION, models=models)
    assert [comparison[side]["model"] for side in SIDES] == models
    assert [comparison[side]["content"].split(" says ")[0] for side in SIDES] == models
    assert gateway.http.get(f"/v1/comparisons/{comparison['id']}").json() == comparison
    body = {"messages": QUESTION, "models": models[:3], "stream": True}
    told = events(gateway.http.post("/v1/comparisons", json=body).text)
    done = {event["side"]: event["model"] for event in told if event["type"] == "comparison.side_done"}
    assert done == dict(zip(SIDES, models[:3], strict=False))
    assert "fourth" not in told[-1]["comparison"]


def test_an_alias_is_told_with_the_version_that_answered_and_neither_while_blind(gateway: Gateway) -> None:
    assert gateway.http.put("/v1/aliases/support", json={"model": CAPTAIN}).status_code == 201
    for blind, names in ((False, {("base", "base"), ("support", CAPTAIN)}), (True, {(None, None)})):
        body = {"messages": QUESTION, "models": ["base", "support"], "stream": True, "blind": blind}
        told = events(gateway.http.post("/v1/comparisons", json=body).text)
        done = [event for event in told if event["type"] == "comparison.side_done"]
        assert {(event["requested_model"], event["model"]) for event in done} == names


def test_one_failed_side_of_three_is_told_and_nothing_is_stored(gateway: Gateway) -> None:
    gateway.engine.script = lambda body: (
        FakeAnswer(b'{"error": {"message": "no"}}', status=400) if body["model"] == POET else as_named(body)
    )
    body = {"messages": QUESTION, "models": ["base", CAPTAIN, POET], "stream": True}
    told = events(gateway.http.post("/v1/comparisons", json=body).text)
    assert [event["side"] for event in told if event["type"] == "comparison.side_failed"] == ["third"]
    assert told[-1]["type"] == "comparison.failed"
    assert gateway.http.get(f"/v1/comparisons/{told[0]['comparison_id']}").status_code == 404


def test_conversations_that_went_apart_are_asked_each_its_own(gateway: Gateway) -> None:
    histories = [[{"role": "user", "content": text}] for text in ("tea", "rum")]
    comparison = compare(gateway, histories=histories, models=["base", CAPTAIN])
    assert (comparison["messages"], comparison["histories"]) == (None, histories)
    assert comparison["left"]["content"] == "base says tea"
    assert comparison["right"]["content"] == f"{CAPTAIN} says rum"
    assert gateway.http.get(f"/v1/comparisons/{comparison['id']}").json() == comparison


def test_without_models_the_server_draws_a_blind_pair_without_checkpoints(gateway: Gateway) -> None:
    add_version(gateway, CHECKPOINT)
    drawn_models = set()
    for _ in range(12):
        comparison = compare(gateway, messages=QUESTION)
        assert (comparison["blind"], comparison["left"]["model"]) == (True, None)
        models = {comparison[side]["content"].split(" says ")[0] for side in ("left", "right")}
        assert len(models) == 2
        drawn_models |= models
    assert drawn_models <= {"base", CAPTAIN, POET, COOK}
    assert len(drawn_models) > 2  # all twelve the same pair by chance: 1 in 360 million


def test_pairs_with_fewer_votes_are_drawn_more_often_by_the_published_rule() -> None:
    votes = {frozenset("ab"): 3, frozenset("ac"): 1}
    chance = random.Random(0)
    pairs = Counter(tuple(draw("abc", votes, chance)) for _ in range(14_000))
    expected = {"ab": 0.25, "ac": 0.5, "bc": 1.0}  # 1 / (1 + votes), of 1.75 in all
    for (first, second), weight in expected.items():
        for order in ((first, second), (second, first)):
            assert abs(pairs[order] / 14_000 - weight / 1.75 / 2) < 0.02


@pytest.mark.both_databases
def test_votes_in_force_count_in_the_draw_as_they_come(gateway: Gateway) -> None:
    def voted(model: str, **body: Any) -> dict[str, Any]:
        comparison = compare(gateway, messages=QUESTION, models=["base", model], blind=True)
        rating = gateway.http.post(f"/v1/comparisons/{comparison['id']}/ratings", json={"verdict": "left"} | body)
        assert rating.status_code == 201, rating.text
        told: dict[str, Any] = rating.json()
        return told

    def counts() -> dict[frozenset[str], int]:
        """As a draw has them; those of a server that has just started are the same."""
        with gateway.database.session() as session:
            kept, fresh = gateway.services.pair_votes.read(session), PairCounts().read(session)
        assert kept == fresh
        return {pair: number for pair, number in kept.items() if number}

    poet, cook = frozenset(("base", POET)), frozenset(("base", COOK))
    assert counts() == {}
    rating = [voted(POET, verdict=verdict) for verdict in ("left", "tie")][-1]
    withdrawn = voted(COOK)
    assert counts() == {poet: 2, cook: 1}
    assert gateway.http.post(f"/v1/ratings/{withdrawn['id']}/withdraw", json={}).status_code == 201
    path, body = f"/v1/comparisons/{rating['comparison_id']}/ratings", {"verdict": "right", "supersedes": rating["id"]}
    assert gateway.http.post(path, json=body).status_code == 201
    assert counts() == {poet: 2}


def test_draw_reads_only_the_votes_that_came_since_the_last_one(gateway: Gateway) -> None:
    read: list[int] = []

    def seen(session: Session) -> Mapping[frozenset[str], int]:
        counted = PairCounts.read(pairs, session)
        read.append(pairs._read_to)
        return counted

    pairs = gateway.services.pair_votes
    object.__setattr__(pairs, "read", seen)
    for _ in range(3):
        comparison = compare(gateway, messages=QUESTION)
        gateway.http.post(f"/v1/comparisons/{comparison['id']}/ratings", json={"verdict": "left"})
    assert read == [0, 1, 2]


def test_one_model_alone_makes_no_pair(start_gateway: StartGateway) -> None:
    gateway = start_gateway(as_named)
    response = gateway.http.post("/v1/comparisons", json={"messages": QUESTION})
    assert (response.status_code, gateway.error(response)["code"]) == (409, "too_few_models")


JSON = {"content-type": "application/json"}
HISTORY = [{"role": "user", "content": "x"}]


def test_message_as_deep_as_is_taken_can_be_stored_voted_on_and_read_again(gateway: Gateway) -> None:
    messages = [{"role": "user", "content": nested(30)}]  # with the list of messages and the message 32 deep
    gateway.engine.script = lambda body: streamed(body["model"], "fine")
    comparison = compare(gateway, messages=messages, models=["base", CAPTAIN])
    path = f"/v1/comparisons/{comparison['id']}"
    assert gateway.http.post(f"{path}/ratings", json={"verdict": "left"}).status_code == 201
    assert gateway.http.get(path).json()["messages"] == messages
    assert gateway.http.get("/v1/ratings").json()["data"][0]["messages"] == messages


def test_contradicting_comparison_is_400_with_its_param(gateway: Gateway) -> None:
    for body, param in (
        ({"models": ["base", POET]}, "messages"),
        ({"models": ["base", POET], "messages": HISTORY, "histories": [HISTORY, HISTORY]}, "messages"),
        ({"models": ["base", POET], "histories": [HISTORY]}, "histories"),
        ({"models": ["base", POET], "histories": [HISTORY, HISTORY], "blind": True}, "histories"),
        ({"histories": [HISTORY, HISTORY]}, "histories"),
        ({"models": ["base", POET, COOK], "messages": HISTORY, "blind": True}, "models"),
        ({"models": ["base", POET], "messages": [{"role": "user", "content": "half \ud83d"}]}, "messages"),
        ({"models": ["base", POET], "messages": [{"role": "user", "content": nested(31)}]}, "messages"),
        ({"models": ["base", POET], "messages": [{"role": "user", "content": nested(400)}]}, "messages"),
        ({"models": ["base", POET], "histories": [HISTORY, [{"weight": float("nan")}]]}, "histories"),
        ({"models": ["base", POET], "messages": [{"weight": float("-inf")}]}, "messages"),
        ({"models": ["base", POET], "messages": HISTORY, "stop": ["\ud800"]}, "stop"),
    ):
        response = gateway.http.post("/v1/comparisons", content=json.dumps(body), headers=JSON)
        assert (response.status_code, gateway.error(response)["param"]) == (400, param), body
    assert gateway.engine.requests == []
