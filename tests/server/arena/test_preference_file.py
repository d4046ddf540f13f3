"""Votes become a training file, a holdout of other prompts, and the `dpo` job that tells where it came from."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from server.arena.preferences import export
from server.arena.preferences.pairs import PreferencePairs
from server.arena.ratings import reading
from server.files.check import check_for_job
from tests.server.arena.stored_comparisons import ONE, OTHER, add_comparison, vote, voted
from tests.server.conftest import Gateway

JOBS = "/v1/ratings/fine_tuning_jobs"


def rate_prompts(gateway: Gateway, count: int, **comparison: Any) -> None:
    for number in range(count):
        voted(gateway, add_comparison(gateway, prompt=f"Question {number}", **comparison), rater=f"rater-{number % 3}")


def create(gateway: Gateway, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return gateway.http.post(JOBS, json={"model": "base", **body}, headers=headers)


def created(gateway: Gateway, **body: Any) -> dict[str, Any]:
    answer = create(gateway, **body)
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def lines(gateway: Gateway, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.http.get(f"/v1/files/{file_id}/content").text.splitlines()]


def prompts(records: list[dict[str, Any]]) -> set[str]:
    return {record["input"]["messages"][-1]["content"] for record in records}


def files(gateway: Gateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = gateway.http.get("/v1/files").json()["data"]
    return found


def error_of(gateway: Gateway, answer: httpx.Response) -> tuple[int, str, str]:
    error = gateway.error(answer)
    return answer.status_code, error["code"], error["message"]


@pytest.mark.both_databases
def test_job_trains_on_one_part_of_the_prompts_and_keeps_the_other(gateway: Gateway) -> None:
    rate_prompts(gateway, 40)
    voted(gateway, add_comparison(gateway, prompt="tied"), "tie")
    job = created(gateway, suffix="voted", seed=7, hyperparameters={"n_epochs": 1, "beta": 0.2})
    told = job["tuneloop"]["ratings"]
    train, holdout = lines(gateway, job["training_file"]), lines(gateway, told["holdout_file"])
    assert (job["method"]["type"], job["method"]["dpo"]["hyperparameters"]["beta"], job["seed"]) == ("dpo", 0.2, 7)
    assert (len(train), len(holdout)) == (told["pairs"], told["holdout_pairs"])
    assert prompts(train) | prompts(holdout) == {f"Question {number}" for number in range(40)}
    assert prompts(train) & prompts(holdout) == set()
    assert 2 <= len(holdout) <= 16
    assert (told["votes"], told["raters"], told["left_out"], told["campaign"]) == (40, 3, {"undecided": 1}, None)
    assert job["metadata"] == {"ratings_sha256": told["ratings_sha256"], "holdout_file": told["holdout_file"]}
    assert gateway.http.get(f"/v1/fine_tuning/jobs/{job['id']}").json()["tuneloop"]["ratings"] == told


def test_file_is_one_that_a_job_can_learn_from(gateway: Gateway) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]
    for number in range(12):
        messages = [*turns, {"role": "user", "content": f"And {number}?"}]
        voted(gateway, add_comparison(gateway, "Ja — 好的", "<b>\u2028no</b>", messages=messages))
    job = created(gateway, holdout_fraction=0)
    path = gateway.services.files.path(job["training_file"])
    found = asyncio.run(check_for_job(path, None, "dpo"))
    assert (found.code, found.message) == (None, None)
    assert lines(gateway, job["training_file"])[0]["input"]["messages"][:3] == turns


def test_prompts_keep_their_side_when_votes_come_in_and_however_they_are_written(gateway: Gateway) -> None:
    rate_prompts(gateway, 20)
    before = created(gateway)
    rate_prompts(gateway, 20, left="another answer")
    for number in range(20):
        voted(gateway, add_comparison(gateway, prompt=f"  QUESTION   {number}\n"))
    after = created(gateway)
    held = [prompts(lines(gateway, job["tuneloop"]["ratings"]["holdout_file"])) for job in (before, after)]
    trained = [prompts(lines(gateway, job["training_file"])) for job in (before, after)]
    assert held[0] <= held[1]
    assert not {" ".join(prompt.lower().split()) for prompt in held[1]} & {
        " ".join(prompt.lower().split()) for part in trained for prompt in part
    }


def test_only_the_campaigns_blind_votes_train_where_that_is_asked(gateway: Gateway) -> None:
    rate_prompts(gateway, 15, campaign_id="camp_1")
    rate_prompts(gateway, 5, campaign_id="camp_1", blind=False, left="open")
    rate_prompts(gateway, 15, left="elsewhere")
    told = created(gateway, campaign="camp_1", holdout_fraction=0)["tuneloop"]["ratings"]
    assert (told["pairs"], told["holdout_file"], told["left_out"]) == (15, None, {"not_blind": 5})
    assert told["campaign"] == "camp_1"
    assert created(gateway, blind_only=False, holdout_fraction=0)["tuneloop"]["ratings"]["votes"] == 35


@pytest.mark.both_databases
def test_campaign_held_again_trains_as_the_first_did(gateway: Gateway) -> None:
    for campaign in ("camp_1", "camp_2"):
        rate_prompts(gateway, 12, campaign_id=campaign)
    told = created(gateway, campaign="camp_2", holdout_fraction=0)["tuneloop"]["ratings"]
    assert (told["pairs"], told["left_out"]) == (12, {})
    assert created(gateway, holdout_fraction=0)["tuneloop"]["ratings"]["left_out"] == {"duplicate": 12}


def test_vote_after_an_open_one_on_the_same_answers_trains(gateway: Gateway) -> None:
    voted(gateway, add_comparison(gateway, blind=False), rater="ann")
    voted(gateway, add_comparison(gateway), rater="ann")
    answer = gateway.http.get("/v1/ratings/export?format=openai_dpo")
    assert len(answer.text.splitlines()) == 1
    assert json.loads(answer.headers["x-tuneloop-left-out"]) == {"not_blind": 1}


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    "messages",
    [
        [USER, {"role": "assistant", "content": "Hello"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}],
        [{"role": "critic", "content": "Hi"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": "nul \0"}],
        [USER | {"weight": float("nan")}],
    ],
)
def test_conversation_that_cannot_be_learned_is_left_out_and_fails_no_job(
    gateway: Gateway, messages: list[dict[str, Any]]
) -> None:
    rate_prompts(gateway, 10)
    voted(gateway, add_comparison(gateway, messages=messages))
    job = created(gateway, holdout_fraction=0)
    assert job["tuneloop"]["ratings"]["left_out"] == {"unusable_prompt": 1}
    found = asyncio.run(check_for_job(gateway.services.files.path(job["training_file"]), None, "dpo"))
    assert found.message is None


def test_texts_of_votes_are_never_gone_through_on_the_event_loop(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_prompts(gateway, 12)
    places: dict[str, bool] = {}

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            places[name] = asyncio._get_running_loop() is None and places.get(name, True)
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in (
        (PreferencePairs, "add"),
        (PreferencePairs, "lines"),
        (reading, "rating_object"),
        (export, "jsonl_line"),
        (export, "rating_csv_line"),
    ):
        watch(owner, name)
    created(gateway)
    for form in ("openai_dpo", "csv", "jsonl"):
        assert gateway.http.get("/v1/ratings/export", params={"format": form}).status_code == 200
    assert gateway.http.get("/v1/ratings").status_code == 200
    assert places == dict.fromkeys(("add", "lines", "rating_object", "jsonl_line", "rating_csv_line"), True)


def test_files_without_their_job_expire_and_those_of_a_job_stay(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_prompts(gateway, 40)
    created(gateway)
    assert [file["expires_at"] for file in files(gateway)] == [None, None]

    async def killed(*_: Any) -> None:
        """A server that is killed before the job is made does nothing more."""

    monkeypatch.setattr("server.arena.preferences.training_file._delete_files", killed)
    assert create(gateway, suffix="a:b").status_code == 400
    assert sum(file["expires_at"] is not None for file in files(gateway)) == 2


def test_too_few_pairs_are_400_that_counts_them_and_leaves_no_file(gateway: Gateway) -> None:
    assert error_of(gateway, create(gateway))[:2] == (400, "too_few_pairs")
    rate_prompts(gateway, 9)
    voted(gateway, add_comparison(gateway, finish_reasons=("length", "stop")))
    status, code, message = error_of(gateway, create(gateway, holdout_fraction=0))
    assert (status, code) == (400, "too_few_pairs")
    assert "10 rating(s) give 9 training" in message
    assert "Ratings left out: 1 unfinished." in message
    assert files(gateway) == []


def test_job_that_cannot_be_is_400_and_leaves_no_file(gateway: Gateway) -> None:
    refusals: tuple[tuple[dict[str, Any], str], ...] = (
        ({"model": "nobody"}, "model"),
        ({"hyperparameters": {"beta": 9}}, "method.dpo.hyperparameters.beta"),
        ({"suffix": "a:b"}, "suffix"),
        ({"tuneloop": {"rank": 8}}, "tuneloop.rank"),
        ({"holdout_fraction": 1}, "holdout_fraction"),
        ({"epochs": 1}, "epochs"),
    )
    rate_prompts(gateway, 12)
    for body, param in refusals:
        answer = create(gateway, **{"holdout_fraction": 0, **body})
        assert (answer.status_code, gateway.error(answer)["param"]) == (400, param)
        assert files(gateway) == [], body


@pytest.mark.both_databases
def test_request_sent_again_makes_no_second_job_and_no_second_file(gateway: Gateway) -> None:
    rate_prompts(gateway, 12)
    first = create(gateway, holdout_fraction=0).json()
    again = create(gateway, headers={"x-stainless-retry-count": "1"}, holdout_fraction=0).json()
    assert (again["id"], len(files(gateway))) == (first["id"], 1)
    named = [create(gateway, headers={"Idempotency-Key": "k"}, holdout_fraction=0).json()["id"] for _ in range(2)]
    assert len(set(named)) == 1
    assert named[0] != first["id"]
    other = create(gateway, headers={"Idempotency-Key": "k"}, holdout_fraction=0.1)
    assert error_of(gateway, other)[:2] == (409, "idempotency_key_reused")


class TestExport:
    def test_parts_make_up_the_whole_in_every_format(self, gateway: Gateway) -> None:
        rate_prompts(gateway, 30)
        for form in ("openai_dpo", "jsonl"):
            parts = [
                gateway.http.get("/v1/ratings/export", params={"format": form, "part": part}).text.splitlines()
                for part in ("train", "holdout", "all")
            ]
            assert sorted(parts[0] + parts[1]) == sorted(parts[2])
            assert len(parts[2]) == 30
            assert parts[1]

    def test_unsafe_diverged_leaking_and_superseded_votes_train_nobody(self, gateway: Gateway) -> None:
        kept = voted(gateway, add_comparison(gateway), unsafe="right")
        voted(gateway, add_comparison(gateway, prompt="b"), unsafe="left")
        histories = [[{"role": "user", "content": "c"}], [{"role": "user", "content": "d"}]]
        voted(gateway, add_comparison(gateway, messages=[], histories=histories))
        voted(gateway, add_comparison(gateway, "I am Claude.", prompt="e"))
        voted(gateway, add_comparison(gateway, "", prompt="f"), "right")
        changed = add_comparison(gateway, prompt="g")
        first = voted(gateway, changed)
        voted(gateway, changed, "right", supersedes=first["id"])
        answer = gateway.http.get("/v1/ratings/export?format=openai_dpo")
        (line,) = map(json.loads, answer.text.splitlines())
        assert line["preferred_output"][0]["content"] == kept["left"]["content"]
        assert json.loads(answer.headers["x-tuneloop-left-out"]) == {
            "unsafe_preferred": 1, "went_apart": 1, "identity_leak": 1, "empty_answer": 1, "not_blind": 1,
        }  # fmt: skip

    def test_jsonl_and_csv_hold_what_was_superseded_too(self, gateway: Gateway) -> None:
        comparison = add_comparison(gateway, campaign_id="camp_1")
        first = voted(gateway, comparison)
        second = voted(gateway, comparison, "right", supersedes=first["id"])
        voted(gateway, add_comparison(gateway, models=("base", "base"), prompt="b"))
        records = gateway.http.get("/v1/ratings/export?campaign=camp_1").text.splitlines()
        assert {(record["id"], record["superseded_by"]) for record in map(json.loads, records)} == {
            (first["id"], second["id"]), (second["id"], None),
        }  # fmt: skip
        table = gateway.http.get("/v1/ratings/export", params={"format": "csv", "model": OTHER})
        assert len(table.text.splitlines()) == 3
        assert gateway.http.get("/v1/ratings/export", params={"model": ONE + "x"}).text == ""

    def test_more_than_a_page_comes_out_whole(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("server.arena.preferences.training_file.PAGE", 3)
        rate_prompts(gateway, 8)
        assert len(gateway.http.get("/v1/ratings/export").text.splitlines()) == 8
        assert vote(gateway, add_comparison(gateway)).status_code == 201
