"""A campaign's answers are generated once, whatever dies; its pairs come to raters blind, random and overlapping."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from server.arena.campaigns.generator import AnswerGenerator
from server.arena.campaigns.prompts import read_prompt_file
from server.wire.errors import BadRequest
from serving import EngineUnavailableError
from tests.server.aliases.test_aliases import add_version
from tests.server.conftest import Gateway, StartGateway
from tests.server.fake_engine import FakeAnswer, streamed
from tests.serving.adapters.adapters_on_disk import write_base

CAPTAIN = "ft:base:personal:captain:aaaaaaaa"
POET = "ft:base:personal:poet:bbbbbbbb"


def as_named(body: dict[str, Any]) -> FakeAnswer:
    """An answer that tells whose it is, and to what."""
    return streamed(body["model"], body["model"], " says ", body["messages"][-1]["content"])


@pytest.fixture(autouse=True)
def _base(tmp_path: Path) -> None:
    """What adapters can be loaded on."""
    write_base(tmp_path / "base")


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Gateway:
    gateway = start_gateway(as_named)
    add_version(gateway, CAPTAIN)
    return gateway


def make(gateway: Gateway, **body: Any) -> dict[str, Any]:
    body = {"name": "c", "models": ["base", CAPTAIN], "prompts": ["one", "two"]} | body
    response = gateway.http.post("/v1/campaigns", json=body)
    assert response.status_code == 201, response.text
    campaign: dict[str, Any] = response.json()
    return campaign


def get(gateway: Gateway, campaign: dict[str, Any]) -> dict[str, Any]:
    got: dict[str, Any] = gateway.http.get(f"/v1/campaigns/{campaign['id']}").json()
    return got


def wait(gateway: Gateway, campaign: dict[str, Any], is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while not is_so(got := get(gateway, campaign)):
        assert time.monotonic() < deadline, got
        time.sleep(0.05)
    return got


def make_open(gateway: Gateway, **body: Any) -> dict[str, Any]:
    campaign = wait(gateway, make(gateway, **body), lambda campaign: campaign["status"] != "generating")
    assert campaign["status"] == "open", campaign
    return campaign


def assign(gateway: Gateway, campaign: dict[str, Any], rater: str) -> dict[str, Any]:
    response = gateway.http.post(f"/v1/campaigns/{campaign['id']}/assignments", json={"rater": rater})
    assert response.status_code == 200, response.text
    assignment: dict[str, Any] = response.json()
    return assignment


def vote(gateway: Gateway, assignment: dict[str, Any], rater: str, **body: Any) -> dict[str, Any]:
    path = f"/v1/comparisons/{assignment['comparison']['id']}/ratings"
    response = gateway.http.post(path, json={"verdict": "left", "rater": rater} | body)
    assert response.status_code == 201, response.text
    rating: dict[str, Any] = response.json()
    return rating


def judge_all(gateway: Gateway, campaign: dict[str, Any], rater: str) -> list[dict[str, Any]]:
    votes = []
    while (assignment := assign(gateway, campaign, rater))["comparison"]:
        votes.append(vote(gateway, assignment, rater))
    return votes


@pytest.mark.both_databases
def test_answers_of_every_model_to_every_prompt_are_generated_once(gateway: Gateway) -> None:
    campaign = make_open(gateway, sampling={"temperature": 0.5})
    assert campaign["answers"] == {"done": 4, "total": 4, "failed": 0}
    assert (campaign["items"], campaign["votes"]) == (2, {"done": 0, "total": 4})
    assert campaign["sampling"] == {"temperature": 0.5, "max_tokens": 512}
    assert len(gateway.engine.requests) == 4
    assert {request["temperature"] for request in gateway.engine.requests} == {0.5}
    page = gateway.http.get(f"/v1/campaigns/{campaign['id']}/answers?limit=3").json()
    assert page["has_more"]
    assert [(answer["prompt"], answer["content"]) for answer in page["data"]] == [
        (0, "base says one"),
        (0, f"{CAPTAIN} says one"),
        (1, "base says two"),
    ]


def test_pair_is_blind_until_its_vote_and_comes_again_until_then(gateway: Gateway) -> None:
    campaign = make_open(gateway)
    assignment = assign(gateway, campaign, "ann")
    comparison = assignment["comparison"]
    assert (comparison["blind"], comparison["campaign"]) == (True, campaign["id"])
    assert (comparison["left"]["model"], comparison["right"]["model"]) == (None, None)
    assert assign(gateway, campaign, "ann") == assignment
    assert (assignment["done"], assignment["remaining"]) == (0, 2)
    rating = vote(gateway, assignment, "ann")
    assert rating["campaign"] == campaign["id"]
    assert rating["left"]["content"].startswith(rating["left"]["model"])
    following = assign(gateway, campaign, "ann")
    assert following["comparison"]["id"] != comparison["id"]
    assert (following["done"], following["remaining"]) == (1, 1)
    after = get(gateway, campaign)
    assert (after["votes"], after["raters"]) == ({"done": 1, "total": 4}, [{"rater": "ann", "votes": 1}])


@pytest.mark.both_databases
def test_each_item_is_judged_by_as_many_raters_as_are_wanted_and_begun_ones_first(gateway: Gateway) -> None:
    add_version(gateway, POET)
    campaign = make_open(gateway, models=["base", CAPTAIN, POET], prompts=["1", "2", "3"], raters_per_item=2)
    first = vote(gateway, assign(gateway, campaign, "ann"), "ann")
    overlapping = assign(gateway, campaign, "bob")["comparison"]
    assert {overlapping[side]["content"] for side in ("left", "right")} == {
        first[side]["content"] for side in ("left", "right")
    }
    for rater in ("ann", "bob", "eve"):
        judge_all(gateway, campaign, rater)
    assert get(gateway, campaign)["votes"] == {"done": 18, "total": 18}
    ratings = gateway.http.get("/v1/ratings", params={"limit": 100}).json()["data"]
    judged = Counter(
        (rating["messages"][0]["content"], *sorted((rating["left"]["model"], rating["right"]["model"])))
        for rating in ratings
    )
    assert set(judged.values()) == {2}
    assert assign(gateway, campaign, "eve") | {"done": 0} == {
        "object": "assignment",
        "comparison": None,
        "done": 0,
        "remaining": 0,
    }


def test_order_of_the_sides_is_random(gateway: Gateway) -> None:
    campaign = make_open(gateway, prompts=[str(number) for number in range(20)], raters_per_item=1)
    lefts = Counter(rating["left"]["model"] for rating in judge_all(gateway, campaign, "ann"))
    assert set(lefts) == {"base", CAPTAIN}  # all on one side by chance: 1 in half a million


@pytest.mark.both_databases
def test_fifty_raters_at_once_overfill_no_item_and_none_is_given_two_pairs(gateway: Gateway) -> None:
    campaign = make_open(gateway, prompts=[str(number) for number in range(20)], raters_per_item=3)
    raters = [f"rater-{number}" for number in range(50)]
    with ThreadPoolExecutor(25) as pool:
        given = list(pool.map(lambda rater: (rater, assign(gateway, campaign, rater)), raters * 2))
    by_rater: dict[str, set[str]] = {}
    for rater, assignment in given:
        by_rater.setdefault(rater, set()).add(assignment["comparison"]["id"])
    assert {len(comparisons) for comparisons in by_rater.values()} == {1}
    held = Counter(assignment["comparison"]["messages"][0]["content"] for _, assignment in given[:50])
    assert max(held.values()) == 3
    with ThreadPoolExecutor(25) as pool:
        list(pool.map(lambda entry: vote(gateway, entry[1], entry[0]), given[:50]))
    assert get(gateway, campaign)["votes"] == {"done": 50, "total": 60}
    assert assign(gateway, campaign, "late")["remaining"] == 20 - 16  # 16 items are full, and one was begun


@pytest.mark.both_databases
def test_pair_left_lying_goes_to_others_and_its_vote_is_taken_all_the_same(gateway: Gateway) -> None:
    from server.storage.tables import CampaignAssignmentRow

    campaign = make_open(gateway, prompts=["one"], raters_per_item=1)
    lying = assign(gateway, campaign, "ann")
    assert assign(gateway, campaign, "bob")["comparison"] is None
    with gateway.database.session() as session:
        session.execute(update(CampaignAssignmentRow).values(assigned_at=CampaignAssignmentRow.assigned_at - 700))
    taken = assign(gateway, campaign, "bob")
    assert taken["comparison"]["id"] != lying["comparison"]["id"]
    assert assign(gateway, campaign, "ann")["comparison"] is None
    vote(gateway, lying, "ann")
    vote(gateway, taken, "bob")
    assert get(gateway, campaign)["votes"]["done"] == 2


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_vote_on_a_pair_left_lying_and_its_rater_asking_for_the_next_never_wait_for_each_other(
    gateway: Gateway,
) -> None:
    from server.arena.campaigns.assignments import update_assignment
    from server.storage.tables import CampaignAssignmentRow

    def leave_lying() -> None:
        with gateway.database.session() as session:
            session.execute(update(CampaignAssignmentRow).values(assigned_at=CampaignAssignmentRow.assigned_at - 700))

    campaign = make_open(gateway, prompts=["one"])
    comparison_id = assign(gateway, campaign, "ann")["comparison"]["id"]
    leave_lying()
    for rater in ("bob", "eve"):  # ann's place is free now, and eve's and bob's will be when ann asks
        assign(gateway, campaign, rater)
    leave_lying()
    mine = select(CampaignAssignmentRow.item).where(CampaignAssignmentRow.comparison_id == comparison_id)
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with ThreadPoolExecutor(1) as pool, gateway.database.session() as session:
        session.execute(mine.with_for_update())  # a vote of ann's comes in from another tab
        asked = pool.submit(assign, gateway, campaign, "ann")
        deadline = time.monotonic() + 20
        while not session.scalar(waiting):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        update_assignment(session, comparison_id, rater="ann", is_rated=True)
        session.commit()
        assert asked.result()["done"] == 1


@pytest.mark.both_databases
def test_withdrawn_vote_frees_its_place_for_another_rater(gateway: Gateway) -> None:
    campaign = make_open(gateway, prompts=["one"], raters_per_item=1)
    rating = vote(gateway, assign(gateway, campaign, "ann"), "ann")
    response = gateway.http.post(f"/v1/ratings/{rating['id']}/withdraw", json={"rater": "ann"})
    assert response.status_code == 201, response.text
    assert get(gateway, campaign)["votes"]["done"] == 0
    assert assign(gateway, campaign, "ann")["comparison"] is None
    vote(gateway, assign(gateway, campaign, "bob"), "bob")
    assert get(gateway, campaign)["raters"] == [{"rater": "bob", "votes": 1}, {"rater": "ann", "votes": 0}]


def test_closed_campaign_gives_out_nothing_takes_open_votes_and_can_be_opened_again(gateway: Gateway) -> None:
    campaign = make_open(gateway)
    assignment = assign(gateway, campaign, "ann")
    path = f"/v1/campaigns/{campaign['id']}"
    closed = gateway.http.post(f"{path}/close").json()
    assert (closed["status"], closed["closed_at"] > 0) == ("closed", True)
    response = gateway.http.post(f"{path}/assignments", json={"rater": "bob"})
    assert (response.status_code, gateway.error(response)["code"]) == (409, "campaign_closed")
    vote(gateway, assignment, "ann")
    assert gateway.http.post(f"{path}/reopen").json()["status"] == "open"
    assert assign(gateway, campaign, "bob")["comparison"]


@pytest.mark.both_databases
def test_campaign_can_be_deleted_until_somebody_has_voted(gateway: Gateway) -> None:
    first, second = make_open(gateway), make_open(gateway)
    assignment = assign(gateway, first, "ann")
    assert gateway.http.delete(f"/v1/campaigns/{first['id']}").json()["deleted"] is True
    assert gateway.http.get(f"/v1/campaigns/{first['id']}").status_code == 404
    assert gateway.http.get(f"/v1/comparisons/{assignment['comparison']['id']}").status_code == 404
    vote(gateway, assign(gateway, second, "ann"), "ann")
    response = gateway.http.delete(f"/v1/campaigns/{second['id']}")
    assert (response.status_code, gateway.error(response)["code"]) == (409, "campaign_has_votes")
    assert [campaign["id"] for campaign in gateway.http.get("/v1/campaigns").json()["data"]] == [second["id"]]


def test_refused_prompt_fails_its_answer_and_leaves_its_pairs_out(start_gateway: StartGateway) -> None:
    refusal = json.dumps({"error": {"message": "The prompt is too long.", "type": "x", "code": 400}}).encode()

    def script(body: dict[str, Any]) -> FakeAnswer:
        if body["messages"][-1]["content"] == "long" and body["model"] == CAPTAIN:
            return FakeAnswer(refusal, status=400)
        return as_named(body)

    gateway = start_gateway(script)
    add_version(gateway, CAPTAIN)
    campaign = make_open(gateway, prompts=["long", "short"])
    assert campaign["answers"] == {"done": 3, "total": 4, "failed": 1}
    assert (campaign["items"], campaign["items_left_out"], campaign["votes"]["total"]) == (1, 1, 2)
    (failed,) = gateway.http.get(f"/v1/campaigns/{campaign['id']}/answers?status=failed").json()["data"]
    assert (failed["prompt"], failed["model"], failed["error"]["message"]) == (0, CAPTAIN, "The prompt is too long.")
    assert [rating["messages"][0]["content"] for rating in judge_all(gateway, campaign, "ann")] == ["short"]


@pytest.mark.both_databases
def test_answers_on_which_votes_would_not_count_are_left_out_and_the_campaign_says_why(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway(lambda body: streamed(body["model"], "and so on", finish_reason="length"))
    add_version(gateway, CAPTAIN)
    campaign = wait(gateway, make(gateway), lambda campaign: campaign["status"] == "failed")
    assert campaign["error"]["code"] == "no_answers"
    assert "max_tokens" in campaign["error"]["message"]
    response = gateway.http.post(f"/v1/campaigns/{campaign['id']}/assignments", json={})
    assert (response.status_code, gateway.error(response)["code"]) == (409, "campaign_failed")
    gateway.engine.script = as_named
    assert gateway.http.post(f"/v1/campaigns/{campaign['id']}/reopen").json()["status"] == "generating"
    again = wait(gateway, campaign, lambda campaign: campaign["status"] == "open")
    assert (again["answers"], again["items"], again["error"]) == ({"done": 4, "total": 4, "failed": 0}, 2, None)


@pytest.mark.both_databases
def test_failed_campaign_that_was_closed_generates_anew_when_it_is_opened_again(start_gateway: StartGateway) -> None:
    gateway = start_gateway(lambda body: streamed(body["model"], "and so on", finish_reason="length"))
    add_version(gateway, CAPTAIN)
    campaign = wait(gateway, make(gateway), lambda campaign: campaign["status"] == "failed")
    path = f"/v1/campaigns/{campaign['id']}"
    assert gateway.http.post(f"{path}/close").json()["status"] == "closed"
    gateway.engine.script = as_named
    assert gateway.http.post(f"{path}/reopen").json()["status"] == "generating"
    again = wait(gateway, campaign, lambda campaign: campaign["status"] == "open")
    assert (again["answers"]["done"], again["items"]) == (4, 2)


def test_closed_campaign_with_pairs_keeps_its_failures_when_it_is_opened_again(start_gateway: StartGateway) -> None:
    gateway = start_gateway(
        lambda body: FakeAnswer(b"{}", status=400) if body["messages"][-1]["content"] == "two" else as_named(body)
    )
    add_version(gateway, CAPTAIN)
    path = f"/v1/campaigns/{make_open(gateway)['id']}"
    gateway.http.post(f"{path}/close")
    opened = gateway.http.post(f"{path}/reopen").json()
    assert (opened["status"], opened["answers"]["failed"]) == ("open", 2)


@pytest.mark.both_databases
def test_model_that_is_deleted_is_given_up_at_once_and_the_other_pairs_are_judged(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.storage.tables import CampaignAnswerRow

    monkeypatch.setitem(AnswerGenerator.__init__.__kwdefaults__, "pauses_s", (0.1,))

    def script(body: dict[str, Any]) -> FakeAnswer:
        if body["model"] == CAPTAIN:
            return streamed(body["model"], end=EngineUnavailableError("The engine is starting.", retry_after_s=1))
        return as_named(body)

    gateway = start_gateway(script)
    for model in (CAPTAIN, POET):
        add_version(gateway, model)
    prompts = [f"prompt {number}" for number in range(60)]
    campaign = make(gateway, models=["base", CAPTAIN, POET], prompts=prompts)
    wait(gateway, campaign, lambda campaign: campaign["answers"]["done"] == 120)
    assert gateway.http.delete(f"/v1/models/{CAPTAIN}").status_code == 200
    campaign = wait(gateway, campaign, lambda campaign: campaign["status"] == "open")
    assert campaign["answers"] == {"done": 120, "total": 180, "failed": 60}
    assert (campaign["items"], campaign["items_left_out"], campaign["error"]) == (60, 120, None)
    (failed,) = gateway.http.get(f"/v1/campaigns/{campaign['id']}/answers?status=failed&limit=1").json()["data"]
    assert (failed["model"], failed["error"]["code"]) == (CAPTAIN, "model_not_found")
    with gateway.database.session() as session:
        never_asked = CampaignAnswerRow.status == "failed", CampaignAnswerRow.attempts == 0
        assert session.scalars(select(CampaignAnswerRow.id).where(*never_asked)).all()  # else each was tried four times
    assert assign(gateway, campaign, "ann")["comparison"]


def test_engine_that_is_away_is_waited_for_and_the_campaign_says_so(start_gateway: StartGateway) -> None:
    is_away = threading.Event()
    is_away.set()

    def script(body: dict[str, Any]) -> FakeAnswer:
        if is_away.is_set():
            return streamed(body["model"], end=EngineUnavailableError("The engine is starting.", retry_after_s=1))
        return as_named(body)

    gateway = start_gateway(script)
    add_version(gateway, CAPTAIN)
    campaign = wait(gateway, make(gateway), lambda campaign: campaign["error"] is not None)
    assert campaign["status"] == "generating"
    assert campaign["error"]["code"] == "engine_unavailable"
    assert "Waiting for" in campaign["error"]["message"]
    assert campaign["estimated_finish"] is None
    is_away.clear()
    campaign = wait(gateway, campaign, lambda campaign: campaign["status"] == "open")
    assert (campaign["answers"]["done"], campaign["error"]) == (4, None)


def test_answers_that_were_there_are_not_asked_for_again_after_a_restart(start_gateway: StartGateway) -> None:
    def script(body: dict[str, Any]) -> FakeAnswer:
        if body["messages"][-1]["content"] == "two":
            return streamed(body["model"], end=EngineUnavailableError("The engine is starting.", retry_after_s=1))
        return as_named(body)

    first = start_gateway(script)
    add_version(first, CAPTAIN)
    campaign = wait(first, make(first), lambda campaign: campaign["answers"]["done"] == 2)
    first.stop()
    second = start_gateway(as_named)
    assert wait(second, campaign, lambda campaign: campaign["status"] == "open")["answers"]["done"] == 4
    assert [request["messages"][-1]["content"] for request in second.engine.requests] == ["two", "two"]


def test_stored_answers_outlive_their_model(gateway: Gateway) -> None:
    campaign = make_open(gateway)
    assert gateway.http.delete(f"/v1/models/{CAPTAIN}").status_code == 200
    assert {len(judge_all(gateway, campaign, rater)) for rater in ("ann", "bob")} == {2}


def test_prompts_of_a_file_are_what_was_asked_without_the_answers(gateway: Gateway) -> None:
    lines: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "chat"}, {"role": "assistant", "content": "gone"}]},
        {"prompt": "plain"},
        {
            "input": {"messages": [{"role": "user", "content": "pair"}]},
            "preferred_output": [{"role": "assistant", "content": "x"}],
            "non_preferred_output": [{"role": "assistant", "content": "y"}],
        },
        {"prompt": "one too many"},
    ]
    content = "\n".join(json.dumps(line) for line in lines)
    campaign = make_open(gateway, prompts=None, prompts_file=upload(gateway, content), limit=3)
    answers = gateway.http.get(f"/v1/campaigns/{campaign['id']}/answers").json()["data"]
    assert [answer["messages"] for answer in answers[::2]] == [
        [{"role": "user", "content": text}] for text in ("chat", "plain", "pair")
    ]


def test_faults_of_a_prompts_file_come_all_at_once_with_their_lines(gateway: Gateway) -> None:
    king = '{"messages": [{"role": "king", "content": "x"}]}'
    content = "\n".join(['{"prompt": "fine"}', '{"nothing": 1}', "", king, "not json", '{"prompt": ""}'])
    response = gateway.http.post(
        "/v1/campaigns",
        json={"name": "c", "models": ["base", CAPTAIN], "prompts_file": upload(gateway, content)},
    )
    error = gateway.error(response)
    assert (response.status_code, error["param"], error["code"]) == (400, "prompts_file", "invalid_prompts")
    assert [line.split(":")[0] for line in error["message"].split("\n")[1:]] == ["line 2", "line 4", "line 5", "line 6"]


def test_of_many_faults_the_first_are_told_the_others_counted_and_not_all_are_looked_for(tmp_path: Path) -> None:
    import tracemalloc

    file = tmp_path / "prompts.jsonl"
    for count, told in ((30, "30 error(s)"), (50_000, "at least 10000 error(s)")):
        file.write_text("{}\n" * count, encoding="utf-8")
        tracemalloc.start()
        with pytest.raises(BadRequest) as refused:
            read_prompt_file(file, None)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        first, *places, last = refused.value.message.split("\n")
        assert told in first
        assert [place.split(":")[0] for place in places] == [f"line {number}" for number in range(1, 21)]
        assert last.startswith("and ")
        assert peak_bytes < 2**20  # 50,000 faults in a list take 8 MB


def nested(depth: int) -> Any:
    """So many lists in each other."""
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


JSON = {"content-type": "application/json"}
REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"models": ["base"]}, 400, "models", "array_below_min_length"),
    ({"models": ["base", "base"]}, 400, "models", "duplicate_models"),
    ({"models": ["base", "x"]}, 404, "models", "model_not_found"),
    ({"prompts": []}, 400, "prompts", "empty_array"),
    ({"prompts": None}, 400, "prompts", "missing_required_parameter"),
    ({"prompts": [""]}, 400, "prompts", "invalid_prompts"),
    ({"prompts": ["half \ud83d"]}, 400, "prompts", "invalid_prompts"),
    ({"prompts": ["a"] * 1001}, 400, "prompts", "too_many_prompts"),
    ({"prompts": [[{"role": "assistant", "content": "x"}]]}, 400, "prompts", "invalid_prompts"),
    ({"prompts": None, "prompts_file": "file-x"}, 400, "prompts_file", "file_not_found"),
    ({"prompts_file": "file-x"}, 400, "prompts", "invalid_value"),
    ({"raters_per_item": 0}, 400, "raters_per_item", "integer_below_min_value"),
    ({"raters_per_item": 51}, 400, "raters_per_item", "integer_above_max_value"),
    ({"name": " "}, 400, "name", "string_below_min_length"),
    ({"sampling": {"heat": 1}}, 400, "sampling.heat", "unknown_parameter"),
    ({"sampling": {"stop": ["\ud800"]}}, 400, "sampling.stop", "invalid_value"),
    ({"sampling": {"stop": "\ud800"}}, 400, "sampling.stop", "invalid_value"),
    ({"prompts": [[{"role": "user", "content": "x", "weight": float("nan")}]]}, 400, "prompts", "invalid_prompts"),
    ({"prompts": [[{"role": "user", "content": nested(200)}]]}, 400, "prompts", "invalid_prompts"),
]


def test_bad_campaign_is_refused_with_its_param(gateway: Gateway) -> None:
    for change, status, param, code in REFUSED:
        body = {"name": "c", "models": ["base", CAPTAIN], "prompts": ["one"]} | change
        response = gateway.http.post("/v1/campaigns", content=json.dumps(body), headers=JSON)
        error = gateway.error(response)
        assert (response.status_code, error["param"], error["code"]) == (status, param, code), change
    assert gateway.http.get("/v1/campaigns").json()["data"] == []


def test_campaign_that_is_not_there_is_404(gateway: Gateway) -> None:
    for asked in ("GET ", "GET /answers", "POST /close", "POST /reopen", "DELETE ", "POST /assignments"):
        method, path = asked.split(" ")
        response = gateway.http.request(method, f"/v1/campaigns/camp_none{path}")
        assert (response.status_code, gateway.error(response)["code"]) == (404, "campaign_not_found"), asked


def upload(gateway: Gateway, content: str) -> str:
    response = gateway.http.post(
        "/v1/files", files={"file": ("prompts.jsonl", content.encode())}, data={"purpose": "user_data"}
    )
    assert response.status_code == 200, response.text
    file_id: str = response.json()["id"]
    return file_id
