"""Names of models: every spelling that clients send, and further names of the base."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from openai import OpenAI

from server.access.keys import create_key
from server.app.data_dir import StartError
from server.storage.tables import JobCheckpointRow
from tests.server.conftest import Gateway, StartGateway
from tests.server.jobs.test_fine_tuning_api import add_adapter, add_file, add_job, config_of, create

ALIAS = "gpt-4o-mini-2024-07-18"
TUNED = "ft:org/base-1.5:personal:a.b:12345678:ckpt-step-4"


def spellings(name: str) -> set[str]:
    """As they are, as the SDK sends them, and with everything encoded, in both cases."""
    encoded = quote(name, safe="")
    return {name, quote(name, safe="!$&'()*+,;=:@"), quote(name, safe="/"), encoded, encoded.replace("%2F", "%2f")}


@pytest.mark.both_databases
def test_a_model_is_found_in_every_spelling(gateway: Gateway) -> None:
    add_adapter(gateway, TUNED)
    for spelling in spellings(TUNED):
        assert gateway.http.get(f"/v1/models/{spelling}").json()["id"] == TUNED
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key="any", _strict_response_validation=True)
    assert client.models.retrieve(TUNED).id == TUNED
    assert client.models.delete(TUNED).deleted
    assert [model.id for model in client.models.list()] == ["base"]


@pytest.mark.parametrize("spelling", sorted(spellings(TUNED)))
def test_a_model_is_deleted_in_every_spelling(gateway: Gateway, spelling: str) -> None:
    folder = add_adapter(gateway, TUNED)
    assert gateway.http.delete(f"/v1/models/{spelling}").json() == {"id": TUNED, "object": "model", "deleted": True}
    assert not folder.exists()


def test_a_further_name_of_the_base_is_listed_answers_and_is_tuned(start_gateway: StartGateway) -> None:
    gateway = start_gateway(base_model_map={ALIAS: "base", "org/name:1": "base"})
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key="any", _strict_response_validation=True)
    assert [model.id for model in client.models.list()] == ["base", ALIAS, "org/name:1"]
    assert client.models.retrieve("org/name:1").to_dict()["parent"] == "base"
    chat = gateway.http.post("/v1/chat/completions", json={"model": ALIAS, "messages": []})
    assert chat.status_code == 200
    assert gateway.engine.requests[-1]["model"] == ALIAS
    assert gateway.http.delete(f"/v1/models/{ALIAS}").status_code == 400
    job = create(gateway, model=ALIAS).json()
    assert job["model"] == ALIAS
    assert config_of(gateway, job["id"])["base_model_name"] == "base"
    assert job["tuneloop"]["fine_tuned_model"].startswith("ft:base:personal::")


@pytest.mark.parametrize("names", [{"a": "other"}, {"base": "base"}, {"ft:a:b:c:d": "base"}, {"--x": "base"}])
def test_a_map_that_cannot_be_meant_stops_the_start(start_gateway: StartGateway, names: dict[str, str]) -> None:
    with pytest.raises(StartError, match="base_model_map"):
        start_gateway(base_model_map=names)


@pytest.mark.both_databases
def test_a_checkpoint_of_another_project_is_neither_listed_nor_tuned(gateway: Gateway) -> None:
    folder = add_adapter(gateway, TUNED)
    job_id = add_job(gateway, project="theirs")
    with gateway.database.session() as session:
        session.add(
            JobCheckpointRow(
                id="ftckpt_0", job_id=job_id, created_at=0, step_number=4, model=TUNED, adapter_id=folder.name,
                metrics={},
            )
        )  # fmt: skip
        secrets = {project: create_key(session, project, project=project)[1] for project in ("ours", "theirs")}
    file_id = add_file(gateway)
    gateway.know_keys()
    for project, secret in secrets.items():
        headers = {"Authorization": f"Bearer {secret}"}
        listed = gateway.http.get("/v1/models", headers=headers).json()["data"]
        one = gateway.http.get(f"/v1/models/{TUNED}", headers=headers)
        made = create(gateway, model=TUNED, training_file=file_id, headers=headers)
        deleted = gateway.http.delete(f"/v1/adapters/{folder.name}", headers=headers)
        seen = [TUNED in {model["id"] for model in listed}, one.status_code, made.status_code, deleted.status_code]
        assert seen == ([True, 200, 200, 200] if project == "theirs" else [False, 404, 400, 404])
