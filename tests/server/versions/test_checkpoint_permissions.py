"""Checkpoints answer to the project that made them, and to those that were let in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import event, select

from server.access.keys import create_key
from server.storage.tables import JobCheckpointRow, JobRow, new_id, now_s
from tests.conftest import run_cli
from tests.server.conftest import Gateway, StartGateway
from tests.serving.adapters.adapters_on_disk import write_adapter, write_base

pytestmark = pytest.mark.both_databases

CHECKPOINT = "ft:org/base:personal:x:abcdefgh:ckpt-step-10"
FINAL = "ft:org/base:personal:x:ijklmnop"
PATH = f"/v1/fine_tuning/checkpoints/{CHECKPOINT}/permissions"


@dataclass
class Shared:
    """A gateway with a checkpoint that a job of `owner` made, and a key of each project."""

    gateway: Gateway
    keys: dict[str, str]
    checkpoint_id: str
    """The id of the checkpoint's adapter."""

    def client(self, project: str) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.gateway.url}/v1",
            api_key=self.keys[project],
            max_retries=0,
            _strict_response_validation=True,
        )

    def status(self, project: str, model: str = CHECKPOINT) -> int:
        """What a chat with the model is answered with."""
        return self.ask(project, model).status_code

    def ask(self, project: str, model: str = CHECKPOINT) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        return self.gateway.http.post("/v1/chat/completions", json=body, headers=self.headers(project))

    def headers(self, project: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[project]}"}


def add_checkpoint(gateway: Gateway, project: str) -> None:
    job_id = new_id("ftjob-")
    with gateway.database.session() as session:
        session.add(_job(job_id, project))
        session.add(
            JobCheckpointRow(
                id=new_id("ftckpt"),
                job_id=job_id,
                created_at=now_s(),
                step_number=10,
                model=CHECKPOINT,
                adapter_id="unused",
                metrics={},
            )
        )


def _job(job_id: str, project: str) -> JobRow:
    return JobRow(
        id=job_id,
        status="succeeded",
        created_at=now_s(),
        project=project,
        model="base",
        training_file="file-1",
        suffix="x",
        seed=1,
        method="supervised",
        hyperparameters={},
        base_learning_rate=1e-4,
        settings={},
        wanted_model=FINAL,
        adapter_id="unused",
        result_files=[],
        request_sha256="0" * 64,
    )


@pytest.fixture
def keyless(start_gateway: StartGateway, tmp_path: Path) -> Gateway:
    """A gateway that serves a checkpoint and a finished model, adapters on disk both."""
    write_base(tmp_path / "base")
    gateway = start_gateway()
    for name in (CHECKPOINT, FINAL):
        write_adapter(gateway.services.settings.adapters_dir, gateway.engine.base, manifest={"name": name})
    add_checkpoint(gateway, "owner")
    return gateway


@pytest.fixture
def shared(keyless: Gateway) -> Shared:
    with keyless.database.session() as session:
        keys = {
            project: create_key(session, project, project=project, is_admin=project == "admins")[1]
            for project in ("owner", "other", "third", "admins")
        }
    return Shared(keyless, keys, keyless.services.registry.get(CHECKPOINT).id)


def test_checkpoint_answers_to_its_own_project_and_is_not_there_for_another(shared: Shared) -> None:
    assert shared.status("owner") == 200
    refused, unknown = shared.ask("other"), shared.ask("other", "nothing")
    assert (refused.status_code, unknown.status_code) == (404, 404)
    assert shared.gateway.error(refused)["code"] == "model_not_found"
    # The two say the same, and neither names what is hidden but for the name that was asked for.
    assert refused.json()["error"]["message"].replace(CHECKPOINT, "nothing") == unknown.json()["error"]["message"]
    assert FINAL in unknown.text
    assert len(shared.gateway.engine.requests) == 1


def test_finished_models_and_the_base_answer_to_everybody(shared: Shared) -> None:
    assert shared.status("other", FINAL) == 200
    assert shared.status("other", "base") == 200


def test_id_of_its_adapter_is_no_way_around(shared: Shared) -> None:
    assert shared.status("owner", shared.checkpoint_id) == 200
    assert shared.status("other", shared.checkpoint_id) == 404


def test_comparison_is_no_way_around(shared: Shared) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "models": ["base", CHECKPOINT]}
    for project, status in (("other", 404), ("owner", 201)):
        answer = shared.gateway.http.post("/v1/comparisons", json=body, headers=shared.headers(project))
        assert answer.status_code == status


def test_permission_lets_a_project_in_until_it_is_taken_back(shared: Shared) -> None:
    permissions = shared.client("admins").fine_tuning.checkpoints.permissions
    [granted] = permissions.create(CHECKPOINT, project_ids=["other"]).data
    assert (granted.project_id, granted.object) == ("other", "checkpoint.permission")
    assert shared.status("other") == 200
    assert shared.status("third") == 404
    assert permissions.delete(granted.id, fine_tuned_model_checkpoint=CHECKPOINT).deleted
    assert shared.status("other") == 404
    with pytest.raises(openai.NotFoundError):
        permissions.delete(granted.id, fine_tuned_model_checkpoint=CHECKPOINT)


def test_sdk_lists_permissions_page_by_page(shared: Shared) -> None:
    permissions = shared.client("admins").fine_tuning.checkpoints.permissions
    projects = [f"p{number}" for number in range(12)]
    created = permissions.create(CHECKPOINT, project_ids=projects)
    assert [row.project_id for row in created] == projects
    assert [row.project_id for row in permissions.list(CHECKPOINT, order="ascending")] == projects
    assert [row.project_id for row in permissions.list(CHECKPOINT, limit=5)] == projects[::-1]
    with pytest.deprecated_call():
        first = permissions.retrieve(CHECKPOINT)
    assert (len(first.data), first.has_more) == (10, True)
    assert [row.project_id for row in permissions.list(CHECKPOINT, project_id="p3")] == ["p3"]


def test_granting_twice_changes_nothing_even_at_once(shared: Shared) -> None:
    permissions = shared.client("admins").fine_tuning.checkpoints.permissions
    with ThreadPoolExecutor(8) as pool:
        granted = list(pool.map(lambda _: permissions.create(CHECKPOINT, project_ids=["a", "b"]).data, range(12)))
    assert len({row.id for rows in granted for row in rows}) == 2
    assert len(permissions.list(CHECKPOINT).data) == 2


@pytest.mark.parametrize("encoded", [PATH.replace("/base", "%2Fbase"), PATH.replace(":", "%3A"), PATH])
def test_name_may_be_encoded_or_not(shared: Shared, encoded: str) -> None:
    answer = shared.gateway.http.get(encoded, headers=shared.headers("admins"))
    assert answer.json() == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_only_an_admin_may_grant_list_or_take_back(shared: Shared) -> None:
    for method, path in (("POST", PATH), ("GET", PATH), ("DELETE", f"{PATH}/cp_1")):
        answer = shared.gateway.http.request(
            method, path, json={"project_ids": ["owner"]}, headers=shared.headers("owner")
        )
        assert answer.status_code == 403
        assert shared.gateway.error(answer)["code"] == "admin_key_required"


def test_bad_request_for_permissions_is_told(shared: Shared) -> None:
    bad: tuple[tuple[Any, int], ...] = (
        ({"project_ids": []}, 400),
        ({"project_ids": ["a b"]}, 400),
        ({"project_ids": ["a\x00"]}, 400),
        ({}, 400),
    )
    headers = shared.headers("admins")
    for body, status in bad:
        answer = shared.gateway.http.post(PATH, json=body, headers=headers)
        assert answer.status_code == status
        assert str(shared.gateway.error(answer)["param"]).startswith("project_ids")
    for model in (FINAL, "nothing", "a%00b"):
        path = f"/v1/fine_tuning/checkpoints/{model}/permissions"
        answer = shared.gateway.http.post(path, json={"project_ids": ["a"]}, headers=headers)
        assert answer.status_code in (400, 404)
        shared.gateway.error(answer)


def test_keyless_server_answers_to_anybody(keyless: Gateway) -> None:
    body = {"model": CHECKPOINT, "messages": [{"role": "user", "content": "hi"}]}
    assert keyless.http.post("/v1/chat/completions", json=body).status_code == 200


def test_model_that_is_no_checkpoint_costs_no_query(shared: Shared) -> None:
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    assert shared.status("other", FINAL) == 200
    with shared.gateway.database.session() as session:
        bind = session.get_bind()
    event.listen(bind, "before_cursor_execute", note)
    assert shared.status("other", FINAL) == 200
    event.remove(bind, "before_cursor_execute", note)
    assert not [statement for statement in statements if "fine_tuning_checkpoints" in statement]


def test_command_line_makes_the_first_key_an_admins_and_no_later_one_unasked(tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path))
    for arguments in (("--name", "k1"), ("--name", "k2", "--project", "search"), ("--name", "k3", "--admin")):
        assert run_cli("keys", "create", *arguments, *where).returncode == 0
    lines = run_cli("keys", "list", *where).stdout.splitlines()
    shown = {name: next(line for line in lines if f" {name} " in line) for name in ("k1", "k2", "k3")}
    assert {name: "admin" in line for name, line in shown.items()} == {"k1": True, "k2": False, "k3": True}
    assert "search" in shown["k2"]
    assert "default" in shown["k1"]
    refused = run_cli("keys", "create", "--project", "a b", *where)
    assert (refused.returncode, "'a b'" in refused.stderr) == (2, True)


def test_checkpoint_that_no_job_is_known_of_is_there_for_no_key(shared: Shared) -> None:
    """Its row may not be written yet, or be in another database."""
    unknown = "ft:org/base:personal:y:abcdefgh:ckpt-step-3"
    services = shared.gateway.services
    write_adapter(services.settings.adapters_dir, shared.gateway.engine.base, manifest={"name": unknown})
    assert services.registry.get(unknown)
    for project in ("owner", "other", "admins"):
        assert shared.status(project, unknown) == 404
        assert unknown not in {model.id for model in shared.client(project).models.list()}


def test_job_shows_its_checkpoints_to_those_who_may_use_them(shared: Shared) -> None:
    with shared.gateway.database.session() as session:
        job_id = session.scalars(select(JobCheckpointRow.job_id)).one()
    for project, shown in (("owner", [CHECKPOINT]), ("other", [])):
        checkpoints = shared.client(project).fine_tuning.jobs.checkpoints.list(job_id)
        assert [checkpoint.fine_tuned_model_checkpoint for checkpoint in checkpoints] == shown
