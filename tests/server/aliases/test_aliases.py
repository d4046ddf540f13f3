"""Aliases: free names that mean one version, then another; by HTTP and by the command line, on both databases."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from openai import OpenAI
from typer.testing import CliRunner

from server.access.keys import create_key
from server.aliases import changes as aliases
from server.cli.main import USERS_MISTAKES
from server.cli.main import app as command_line
from serving import EngineState
from tests.conftest import run_cli
from tests.server.conftest import Gateway, StartGateway
from tests.server.fake_engine import streamed
from tests.server.files.test_files import eventually
from tests.server.jobs.test_fine_tuning_api import config_of, create
from tests.server.versions.test_checkpoint_permissions import CHECKPOINT, add_checkpoint
from tests.serving.adapters.adapters_on_disk import write_adapter, write_base

pytestmark = pytest.mark.both_databases

ONE, TWO, THREE = (f"ft:base:org:test:{number * 8}" for number in "123")


@dataclass
class Place:
    """A gateway that serves three versions, and a way to ask it."""

    gateway: Gateway
    database_url: str | None
    headers: dict[str, str]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.gateway.http.request(method, f"/v1{path}", json=body, headers=self.headers | headers)

    def put(self, name: str, model: str) -> httpx.Response:
        return self.ask("PUT", f"/aliases/{quote(name)}", {"model": model})

    def promoted(self, name: str, *models: str) -> dict[str, Any]:
        """The alias after it was promoted to each of these in turn."""
        for model in models:
            answer = self.put(name, model)
            assert answer.status_code in (200, 201), answer.text
        alias: dict[str, Any] = answer.json()
        return alias

    def answered_by(self, name: str) -> str:
        """Which model the engine was asked for when a chat named this one."""
        assert self.ask("POST", "/chat/completions", {"model": name, "messages": []}).status_code == 200
        asked: str = self.gateway.engine.requests[-1]["model"]
        return asked

    def refused(self, answer: httpx.Response, status: int, code: str) -> str:
        """The message of an error that is as it should be."""
        error = self.gateway.error(answer)
        assert (answer.status_code, error["code"]) == (status, code), error
        message: str = error["message"]
        return message

    def where(self) -> tuple[str, ...]:
        """The flags that lead a command to what this server works on."""
        url = ("--database-url", self.database_url) if self.database_url else ()
        return ("--data-dir", str(self.gateway.services.settings.data_dir), *url)

    def cli(self, *arguments: str) -> str:
        """What a command printed, or the paragraph that it ended with; run in this process, which is quicker."""
        done = CliRunner().invoke(command_line, ["adapters", *arguments, *self.where()])
        if done.exception is not None:
            assert isinstance(done.exception, USERS_MISTAKES), done.exception
            return str(done.exception)
        return done.stdout

    def remove_from_disk(self, model: str) -> None:
        answer = self.ask("DELETE", f"/models/{model}")
        assert answer.status_code == 200, answer.text


def start_place(start_gateway: StartGateway, tmp_path: Path, database_url: str | None) -> Place:
    if not (tmp_path / "base").exists():
        write_base(tmp_path / "base")
    gateway = start_gateway(lambda body: streamed(body.get("model", ""), "hel", "lo"))
    return Place(gateway, database_url, {})


@pytest.fixture
def place(start_gateway: StartGateway, tmp_path: Path, database_url: str | None) -> Place:
    place = start_place(start_gateway, tmp_path, database_url)
    for name in (ONE, TWO, THREE):
        add_version(place.gateway, name)
    return place


def add_version(gateway: Gateway, name: str, **manifest: Any) -> Path:
    return write_adapter(
        gateway.services.settings.adapters_dir, gateway.engine.base, manifest={"name": name} | manifest
    )


@contextmanager
def keys(place: Place) -> Iterator[dict[str, Place]]:
    """The place as seen with a key of each of two projects."""
    with place.gateway.database.session() as session:
        secrets = {project: create_key(session, project, project=project) for project in ("owner", "other")}
    place.gateway.know_keys()
    yield {
        project: Place(place.gateway, place.database_url, {"Authorization": f"Bearer {secret}"})
        for project, (_key, secret) in secrets.items()
    }


def test_an_alias_answers_as_the_version_that_it_stands_for_from_the_answer_on(place: Place) -> None:
    first = place.put("support", ONE)
    assert (first.status_code, first.json()["model"], first.json()["previous_model"]) == (201, ONE, None)
    assert place.answered_by("support") == ONE
    for model in (TWO, "base", THREE, ONE):
        assert place.put("support", model).status_code == 200
        assert place.answered_by("support") == model


def test_the_alias_object_says_what_it_stands_for_and_where_a_rollback_leads(place: Place) -> None:
    alias = place.promoted("support", ONE, TWO)
    assert set(alias) == {"id", "object", "name", "model", "previous_model", "created_at", "updated_at"}
    assert (alias["object"], alias["name"], alias["model"], alias["previous_model"]) == ("alias", "support", TWO, ONE)
    assert place.ask("GET", "/aliases/support").json() == alias
    place.promoted("a/b:c", ONE)
    listed = place.ask("GET", "/aliases").json()
    assert [one["name"] for one in listed["data"]] == ["a/b:c", "support"]
    assert (listed["object"], listed["has_more"], listed["last_id"]) == ("list", False, "support")


@pytest.mark.parametrize("spelling", ["team/a:b", "team%2Fa%3Ab", "team%2fa:b"])
def test_an_alias_is_found_in_every_spelling(place: Place, spelling: str) -> None:
    place.promoted("team/a:b", ONE, TWO)
    assert place.ask("GET", f"/aliases/{spelling}").json()["model"] == TWO
    assert place.ask("POST", f"/aliases/{spelling}/rollback").json()["model"] == ONE
    assert len(place.ask("GET", f"/aliases/{spelling}/history").json()["data"]) == 3
    assert place.ask("DELETE", f"/aliases/{spelling}").json()["deleted"] is True


def test_promoting_twice_to_the_same_changes_nothing(place: Place) -> None:
    alias = place.promoted("support", ONE, TWO)
    assert place.promoted("support", TWO) == alias
    assert len(place.ask("GET", "/aliases/support/history").json()["data"]) == 2


def test_rollbacks_go_back_step_by_step_and_not_to_what_was_rolled_back(place: Place) -> None:
    place.promoted("support", ONE, TWO, THREE)
    seen = [place.ask("POST", "/aliases/support/rollback").json()["model"] for _ in range(2)]
    assert seen == [TWO, ONE]
    message = place.refused(place.ask("POST", "/aliases/support/rollback"), 409, "no_previous_model")
    assert "PUT /v1/aliases/support" in message
    assert place.answered_by("support") == ONE


def test_a_rollback_may_name_one_from_the_history(place: Place) -> None:
    place.promoted("support", ONE, TWO, THREE)
    back = place.ask("POST", "/aliases/support/rollback", {"model": ONE}).json()
    assert (back["model"], back["previous_model"]) == (ONE, None)
    forth = place.ask("POST", "/aliases/support/rollback", {"model": THREE}).json()
    assert (forth["model"], forth["previous_model"]) == (THREE, ONE)
    assert place.ask("POST", "/aliases/support/rollback", {"model": THREE}).json()["model"] == THREE
    place.refused(place.ask("POST", "/aliases/support/rollback", {"model": "base"}), 400, "model_not_in_history")


def test_a_rollback_passes_over_what_is_gone_and_says_so(place: Place) -> None:
    place.promoted("support", ONE, TWO, THREE)
    place.remove_from_disk(TWO)
    assert place.ask("GET", "/aliases/support").json()["previous_model"] == ONE
    back = place.ask("POST", "/aliases/support/rollback").json()
    assert (back["model"], back["skipped"]) == (ONE, [TWO])
    place.promoted("support", THREE)
    place.remove_from_disk(ONE)
    message = place.refused(place.ask("POST", "/aliases/support/rollback"), 409, "no_previous_model")
    assert ONE in message
    place.refused(place.ask("POST", "/aliases/support/rollback", {"model": ONE}), 404, "model_not_found")
    assert place.answered_by("support") == THREE


def test_the_history_tells_who_when_and_what_even_after_a_deletion(place: Place) -> None:
    with keys(place) as seen:
        owner = seen["owner"]
        owner.promoted("support", ONE, TWO)
        owner.ask("POST", "/aliases/support/rollback")
        owner.ask("DELETE", "/aliases/support")
        path = "/aliases/support/history"
        page = owner.ask("GET", f"{path}?limit=3").json()
        rest = owner.ask("GET", f"{path}?after={page['last_id']}").json()
        owner.refused(owner.ask("GET", "/aliases/never/history"), 404, "alias_not_found")
    told = [(one["action"], one["from"], one["to"]) for one in (*page["data"], *rest["data"])]
    assert told == [("delete", ONE, None), ("rollback", TWO, ONE), ("promote", ONE, TWO), ("promote", None, ONE)]
    assert (page["has_more"], rest["has_more"]) == (True, False)
    for one in page["data"]:
        assert one["object"] == "alias.change"
        assert one["created_by"].startswith("key_")
        assert abs(one["created_at"] - time.time()) < 60


def test_a_deleted_alias_is_a_name_like_any_other(place: Place) -> None:
    place.promoted("support", ONE, TWO)
    assert place.ask("DELETE", "/aliases/support").json() == {"id": "support", "object": "alias", "deleted": True}
    chat = place.ask("POST", "/chat/completions", {"model": "support", "messages": []})
    place.refused(chat, 404, "model_not_found")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rollback")):
        place.refused(place.ask(method, f"/aliases/support{path}"), 404, "alias_not_found")
    again = place.put("support", THREE)
    assert (again.status_code, again.json()["previous_model"]) == (201, None)


REFUSED_NAMES = (
    ("ft:base:org:x:12345678", 400, "invalid_value"),
    ("mine:ckpt-step-3", 400, "invalid_value"),
    ("a b", 400, "invalid_value"),
    ("ü", 400, "invalid_value"),
    ("-a", 400, "invalid_value"),
    ("a" * 201, 400, "invalid_value"),
    ("a\x00", 400, "invalid_value"),
    ("a/history/rollback", 400, "invalid_value"),
    ("base", 409, "alias_name_taken"),
    ("gpt-4o", 409, "alias_name_taken"),
    ("imported", 409, "alias_name_taken"),
    ("removed", 409, "alias_name_taken"),
)


def test_a_name_that_is_not_free_is_refused(start_gateway: StartGateway, tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    gateway = start_gateway(base_model_map={"gpt-4o": "base"})
    place = Place(gateway, None, {})
    add_version(gateway, ONE)
    add_version(gateway, "imported")
    (gateway.services.settings.adapters_dir / ".removed-names").write_text('"removed"\n')
    for name, status, code in REFUSED_NAMES:
        place.refused(place.put(name, ONE), status, code)
        assert place.ask("GET", "/aliases").json()["data"] == [], name


def test_the_longest_name_is_taken(place: Place) -> None:
    assert place.put("a" * 200, ONE).status_code == 201


def test_asking_for_what_can_be_no_alias_is_404(place: Place) -> None:
    for name in ("a b", "a\x00", "a" * 5000, "a/../b", "a/", "adapter-0123456789abcdef", "FT:x"):
        answer = place.ask("GET", f"/aliases/{quote(name, safe='')}")
        assert answer.status_code == 404, name


NO_MODELS: tuple[tuple[dict[str, Any], int, str, str], ...] = (
    ({"model": "nothing"}, 404, "model_not_found", "model"),
    ({"model": "other"}, 400, "alias_of_alias", "model"),
    ({"model": "support"}, 404, "model_not_found", "model"),
    ({"model": ""}, 400, "string_below_min_length", "model"),
    ({"model": 3}, 400, "invalid_type", "model"),
    ({}, 400, "missing_required_parameter", "model"),
    ({"model": ONE, "x": 1}, 400, "unknown_parameter", "x"),
)


def test_a_target_that_is_no_model_is_refused(place: Place) -> None:
    place.promoted("other", ONE)
    for body, status, code, param in NO_MODELS:
        answer = place.ask("PUT", "/aliases/support", body)
        place.refused(answer, status, code)
        assert place.gateway.error(answer)["param"] == param
        assert [one["name"] for one in place.ask("GET", "/aliases").json()["data"]] == ["other"], body


def test_an_id_of_an_adapter_means_its_name(place: Place) -> None:
    assert place.promoted("support", place.gateway.services.registry.get(TWO).id)["model"] == TWO


def test_a_target_that_cannot_be_loaded_changes_nothing(place: Place) -> None:
    place.promoted("support", ONE)
    weights = place.gateway.services.registry.get(TWO).path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    place.refused(place.put("support", TWO), 400, "adapter_not_servable")
    assert place.answered_by("support") == ONE
    assert len(place.ask("GET", "/aliases/support/history").json()["data"]) == 1


def test_while_the_engine_is_away_nothing_is_promoted(place: Place) -> None:
    place.promoted("support", ONE, TWO)
    place.gateway.engine.state = EngineState.STARTING
    for answer in (place.put("support", ONE), place.put("new", "base"), place.ask("POST", "/aliases/support/rollback")):
        place.refused(answer, 503, "engine_unavailable")
        assert "retry-after" in answer.headers
    place.gateway.engine.state = EngineState.READY
    assert place.answered_by("support") == TWO


def test_a_model_that_an_alias_stands_for_cannot_be_deleted(place: Place) -> None:
    place.promoted("support", ONE, TWO)
    adapter = place.gateway.services.registry.get(TWO)
    for path in (f"/models/{TWO}", f"/adapters/{adapter.id}"):
        message = place.refused(place.ask("DELETE", path), 409, "model_in_use")
        assert "'support'" in message
        assert "/v1/aliases/support" in message
    assert adapter.path.exists()
    place.ask("POST", "/aliases/support/rollback")
    place.remove_from_disk(TWO)


def test_a_model_that_goes_while_it_is_loaded_is_not_promoted(place: Place) -> None:
    loading, going = threading.Event(), threading.Event()

    async def load_slowly(name: str, path: Path) -> None:
        loading.set()
        assert await asyncio.to_thread(going.wait, 10)

    place.gateway.engine.load_adapter = load_slowly  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        promoting = pool.submit(httpx.put, f"{place.gateway.url}/v1/aliases/support", json={"model": ONE}, timeout=20)
        assert loading.wait(10)
        removing = pool.submit(place.remove_from_disk, ONE)
        eventually(lambda: ONE not in place.gateway.services.registry.names())
        going.set()
        place.refused(promoting.result(), 404, "model_not_found")
        removing.result()
    assert place.ask("GET", "/aliases").json()["data"] == []


def test_a_rollback_that_somebody_else_overtakes_is_refused(place: Place) -> None:
    """The command line knows nothing of the server's lock."""
    loading, overtaken = threading.Event(), threading.Event()

    async def load_slowly(name: str, path: Path) -> None:
        loading.set()
        assert await asyncio.to_thread(overtaken.wait, 10)

    def promote(*models: str) -> None:
        for model in models:
            with place.gateway.database.session() as session:
                aliases.promote(session, "support", model, None)

    promote(ONE, TWO)
    place.gateway.engine.load_adapter = load_slowly  # type: ignore[method-assign]
    with ThreadPoolExecutor(1) as pool:
        going_back = pool.submit(httpx.post, f"{place.gateway.url}/v1/aliases/support/rollback", timeout=20)
        assert loading.wait(10)
        promote(THREE)
        overtaken.set()
        message = place.refused(going_back.result(), 409, "alias_changed")
    assert THREE in message
    assert going_back.result().headers["x-should-retry"] == "false"
    assert place.ask("GET", "/aliases/support").json()["model"] == THREE


def test_models_list_an_alias_with_its_version_as_parent(place: Place) -> None:
    place.promoted("support", ONE)
    client = OpenAI(base_url=f"{place.gateway.url}/v1", api_key="any", _strict_response_validation=True)
    listed = {model.id: model.to_dict() for model in client.models.list()}
    assert set(listed) == {"base", ONE, TWO, THREE, "support"}
    assert (listed["support"]["parent"], listed["support"]["owned_by"]) == (ONE, "personal")
    assert client.models.retrieve("support").to_dict() == listed["support"]
    message = place.refused(place.ask("DELETE", "/models/support"), 400, "model_is_an_alias")
    assert "DELETE /v1/aliases/support" in message
    assert place.answered_by("support") == ONE


def test_a_comparison_by_alias_stores_the_version_that_answered(place: Place) -> None:
    place.promoted("support", ONE)
    body = {"messages": [{"role": "user", "content": "hi"}], "models": ["base", "support"]}
    made = place.ask("POST", "/comparisons", body)
    assert made.status_code == 201, made.text
    assert made.json()["right"]["model"] == ONE
    place.promoted("support", TWO)
    assert place.ask("GET", f"/comparisons/{made.json()['id']}").json()["right"]["model"] == ONE


def test_an_alias_of_a_hidden_checkpoint_is_hidden(place: Place) -> None:
    add_version(place.gateway, CHECKPOINT)
    add_checkpoint(place.gateway, "owner")
    with keys(place) as seen:
        owner, other = seen["owner"], seen["other"]
        owner.promoted("ours", ONE, CHECKPOINT)
        chat = {"model": "ours", "messages": [{"role": "user", "content": "hi"}]}
        pair = {"messages": chat["messages"], "models": ["base", "ours"]}
        wanted = [("POST", "/chat/completions", chat), ("GET", "/models/ours", None), ("POST", "/comparisons", pair)]
        wanted += [("GET", "/aliases/ours", None), ("GET", "/aliases/ours/history", None)]
        wanted += [("DELETE", "/aliases/ours", None), ("POST", "/aliases/ours/rollback", None)]
        for method, path, body in wanted:
            answer = other.ask(method, path, body)
            assert answer.status_code == 404, (path, answer.text)
            assert CHECKPOINT not in answer.text
        assert "ours" not in {model["id"] for model in other.ask("GET", "/models").json()["data"]}
        assert other.ask("GET", "/aliases").json()["data"] == []
        other.refused(other.put("ours", ONE), 409, "alias_name_taken")
        other.refused(other.put("theirs", CHECKPOINT), 404, "model_not_found")
        unknown = other.ask("POST", "/chat/completions", chat | {"model": "nothing"})
        assert "ours" not in unknown.json()["error"]["message"]
        assert owner.answered_by("ours") == CHECKPOINT
        owner.ask("POST", "/aliases/ours/rollback")
        assert other.answered_by("ours") == ONE
        told = other.ask("GET", "/aliases/ours/history").json()["data"]
        assert [(one["from"], one["to"]) for one in told] == [(None, ONE), (ONE, None), (None, ONE)]


def test_promotions_at_once_leave_one_history_without_gaps(place: Place) -> None:
    models = [ONE, TWO, THREE]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: place.put("support", models[number % 3]), range(24)))
    assert {answer.status_code for answer in answers} == {200, 201}
    assert [answer.status_code for answer in answers].count(201) == 1
    changes = place.ask("GET", "/aliases/support/history?limit=100").json()["data"][::-1]
    assert changes[0]["from"] is None
    assert [one["from"] for one in changes[1:]] == [one["to"] for one in changes[:-1]]
    assert place.answered_by("support") == changes[-1]["to"]


def test_two_processes_that_make_the_same_alias_at_once_both_count(place: Place) -> None:
    """The server's own lock doesn't reach the command line; the database's does."""

    def promote(number: int) -> None:
        with place.gateway.database.session() as session:
            aliases.promote(session, "support", [ONE, TWO][number % 2], None)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(promote, range(40)))
    changes = place.ask("GET", "/aliases/support/history?limit=100").json()["data"][::-1]
    assert [one["from"] for one in changes[1:]] == [one["to"] for one in changes[:-1]]


def test_aliases_are_there_again_after_a_restart(
    place: Place, start_gateway: StartGateway, tmp_path: Path, database_url: str | None
) -> None:
    place.promoted("support", ONE, TWO)
    place.gateway.stop()
    again = start_place(start_gateway, tmp_path, database_url)
    assert again.answered_by("support") == TWO
    assert again.ask("POST", "/aliases/support/rollback").json()["model"] == ONE


def test_a_new_further_name_of_the_base_goes_before_an_old_alias(place: Place, start_gateway: StartGateway) -> None:
    place.promoted("gpt-4o", ONE)
    place.gateway.stop()
    gateway = start_gateway(lambda body: streamed(body.get("model", ""), "x"), base_model_map={"gpt-4o": "base"})
    again = Place(gateway, place.database_url, {})
    assert again.answered_by("gpt-4o") == "gpt-4o"
    assert again.ask("DELETE", "/aliases/gpt-4o").status_code == 200


def test_command_line_promotes_and_rolls_back_beside_a_running_server(place: Place) -> None:
    done = run_cli("adapters", "promote", "support", ONE, *place.where())
    assert f"support now points to {ONE}" in done.stdout, done.stderr
    adapter_id = place.gateway.services.registry.get(TWO).id
    assert f"support now points to {TWO}" in place.cli("promote", "support", adapter_id)
    eventually(lambda: place.gateway.services.aliases.current.get("support") == TWO)
    assert place.answered_by("support") == TWO
    line = next(line for line in place.cli("list").splitlines() if TWO in line)
    assert "support" in line
    assert f"support now points to {ONE}" in place.cli("rollback", "support")
    told = place.cli("aliases")
    assert [word in told for word in (ONE, TWO, "promote", "rollback", "support")] == [True] * 5
    eventually(lambda: place.gateway.services.aliases.current.get("support") == ONE)
    assert place.answered_by("support") == ONE
    assert f"support now points to {TWO}" in place.cli("rollback", "support", "--to", TWO)


def test_command_line_refuses_what_the_server_would(place: Place) -> None:
    add_version(place.gateway, "ft:base:org:bad:12345678", parity={"passed": False, "reasons": ["it babbles"]})
    place.promoted("support", ONE)
    for arguments, said in (
        (("promote", "support", "nothing"), "There is no model 'nothing' here"),
        (("promote", ONE, TWO), "Choose another name"),
        (("promote", "base", TWO), "belongs to a model"),
        (("promote", "support", "ft:base:org:bad:12345678"), "it babbles"),
        (("rollback", "support"), "can't be rolled back"),
        (("rollback", "support", "--to", TWO), "never pointed to"),
        (("rollback", "nothing"), "no alias 'nothing'"),
        (("remove", ONE), "the alias 'support' points to it"),
    ):
        assert said in place.cli(*arguments).replace("\n", " "), arguments
    assert "failed" in next(line for line in place.cli("list").splitlines() if "bad:12345678" in line)
    assert place.gateway.services.registry.get(ONE).path.exists()


def test_a_stream_says_which_version_answered(place: Place) -> None:
    place.promoted("support", TWO)
    body = {"model": "support", "messages": [], "stream": True}
    lines = place.ask("POST", "/chat/completions", body).text.splitlines()
    chunks = [json.loads(line[5:]) for line in lines if line.startswith("data:") and "[DONE]" not in line]
    assert {chunk["model"] for chunk in chunks} == {TWO}


def test_a_job_on_an_alias_goes_on_from_the_version_that_it_stands_for(place: Place) -> None:
    place.promoted("support", ONE, TWO)
    made = create(place.gateway, model="support")
    assert made.status_code == 200, made.text
    run_dir = place.gateway.services.settings.runs_dir / made.json()["id"]
    assert json.loads((run_dir / "from_adapter" / "manifest.json").read_text())["name"] == TWO
    place.promoted("support", "base")
    assert config_of(place.gateway, create(place.gateway, model="support").json()["id"])["base_model_name"] == "base"
