"""`/v1/models/{model}/lineage` over HTTP: the chain, what came of a model, its files, its state; nothing foreign."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.access.keys import create_key
from server.jobs import states
from server.storage.tables import JobCheckpointRow, JobRow, new_id, now_s
from tests.server.conftest import Gateway, StartGateway
from tests.server.jobs.test_fine_tuning_api import add_adapter, add_file, add_job, create
from tests.serving.adapters.adapters_on_disk import write_base, write_peft_adapter
from tests.serving.adapters.archives import files_of, tar_gz
from tests.serving.adapters.bad_adapters import with_tokenizer

ONE, TWO, THREE = (f"ft:base:personal:{name}:{name[0] * 8}" for name in ("one", "two", "three"))


def lineage(gateway: Gateway, model: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = gateway.http.get(f"/v1/models/{model}/lineage", headers=headers)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def models(versions: list[dict[str, Any]]) -> list[str | None]:
    return [version["model"] for version in versions]


def make_tuned_model(gateway: Gateway, name: str, model: str = "base", **body: Any) -> str:
    """The id of a job on `model` that has made `name`, whose adapter is there."""
    job_id = str(create(gateway, model=model, **body).json()["id"])
    with gateway.database.session() as session:
        job = session.query(JobRow).filter_by(id=job_id).one()
        job.wanted_model, job.fine_tuned_model, job.status = name, name, "succeeded"
    add_adapter(gateway, name)
    return job_id


@pytest.fixture
def still(gateway: Gateway) -> Gateway:
    """A gateway whose queue is empty of what a test adds: jobs are ended by hand."""
    gateway.services.runner.wake = lambda: None  # type: ignore[method-assign]
    return gateway


@pytest.mark.both_databases
def test_the_chain_leads_from_the_base_over_every_job(still: Gateway) -> None:
    file_id = add_file(still)
    first = make_tuned_model(still, ONE, training_file=file_id)
    second = make_tuned_model(still, TWO, ONE)
    make_tuned_model(still, THREE, "base")
    told = lineage(still, TWO)
    assert (told["object"], told["model"]) == ("model.lineage", TWO)
    assert models(told["chain"]) == ["base", ONE, TWO]
    base, one, two = told["chain"]
    assert [version["kind"] for version in told["chain"]] == ["base", "tuned", "tuned"]
    assert (base["state"], base["job"], base["report"]) == ("served", None, None)
    assert (one["job"]["id"], two["job"]["id"], two["parent"]) == (first, second, ONE)
    assert one["files"]["training_file"]["id"] == file_id
    assert one["files"]["training_file"]["deleted"] is False
    assert models(lineage(still, ONE)["descendants"]) == [TWO]
    assert sorted(map(str, models(lineage(still, "base")["descendants"]))) == sorted([ONE, TWO, THREE])


def test_models_are_in_the_order_of_their_jobs_whichever_ends_first(gateway: Gateway) -> None:
    # The page draws them in this order, and a list that changes its order moves away from under the pointer.
    models_of_jobs = [f"ft:base:personal:{name}:{name[0] * 8}" for name in ("zebra", "ant", "moth")]
    jobs = [add_job(gateway, status="paused", wanted_model=name, created_at=now_s()) for name in models_of_jobs]
    assert models(lineage(gateway, "base")["descendants"]) == models_of_jobs
    for ends in (1, 0):
        with gateway.database.session() as session:
            job = session.query(JobRow).filter_by(id=jobs[ends]).one()
            job.fine_tuned_model, job.status = job.wanted_model, "succeeded"
        add_adapter(gateway, models_of_jobs[ends], created_at=now_s() + 60)
        assert models(lineage(gateway, "base")["descendants"]) == models_of_jobs


def test_an_ancestor_that_is_gone_keeps_its_place_and_so_does_a_deleted_file(still: Gateway) -> None:
    file_id = add_file(still)
    make_tuned_model(still, ONE, training_file=file_id)
    make_tuned_model(still, TWO, ONE)
    assert still.http.delete(f"/v1/models/{ONE}").status_code == 200
    assert still.http.delete(f"/v1/files/{file_id}").status_code == 200
    told = lineage(still, TWO)["chain"]
    assert models(told) == ["base", ONE, TWO]
    assert (told[1]["state"], told[1]["report"]) == ("gone", None)
    assert told[1]["files"]["training_file"] == {"id": file_id, "filename": None, "sha256": None, "deleted": True}
    assert models(lineage(still, ONE)["descendants"]) == [TWO]


def test_a_run_without_a_job_names_its_start_by_folder(still: Gateway) -> None:
    start = add_adapter(still, ONE)
    folder = add_adapter(still, TWO)
    manifest = json.loads((folder / "manifest.json").read_text())
    report = {"passed": True, "tuned": {"mean": 0.02, "max": 0.1}, "served": ["much"], "bound": 0.15}
    manifest |= {"config": {"from_adapter": str(start), "r": 8, "beta": 0.1}, "metrics": {"valid_loss": 0.5}}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"parity": report}))
    told = lineage(still, TWO)
    assert models(told["chain"]) == ["base", ONE, TWO]
    card = told["chain"][-1]["report"]
    assert (card["metrics"], card["recipe"]) == ({"valid_loss": 0.5}, {"r": 8, "beta": 0.1})
    assert card["parity"] == {"passed": True, "tuned": {"mean": 0.02, "max": 0.1}, "bound": 0.15}
    assert str(start.parent) not in json.dumps(told)


def test_a_ring_in_manifests_ends(still: Gateway) -> None:
    folders = [add_adapter(still, ONE), add_adapter(still, TWO)]
    for folder, start in zip(folders, reversed(folders), strict=True):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"config": {"from_adapter": str(start)}}))
    told = lineage(still, TWO)
    assert models(told["chain"]) == [ONE, TWO]
    assert models(told["descendants"]) == [ONE]


def test_a_manifest_that_says_nonsense_harms_nothing(still: Gateway) -> None:
    folder = add_adapter(still, ONE)
    manifest = json.loads((folder / "manifest.json").read_text())
    nonsense = {"config": [1], "metrics": "good", "parity": 7, "versions": None}
    (folder / "manifest.json").write_text(json.dumps(manifest | nonsense))
    report = lineage(still, ONE)["chain"][-1]["report"]
    assert (report["metrics"], report["recipe"], report["parity"]) == ({}, {}, None)


def test_an_alias_and_an_adapters_id_mean_the_version(tmp_path: Path, start_gateway: StartGateway) -> None:
    base = with_tokenizer(write_base(tmp_path / "base"))
    gateway = start_gateway()
    packed = tar_gz(files_of(write_peft_adapter(tmp_path / "peft", base)))
    adapter = gateway.http.post("/v1/adapters", files={"file": ("a.tar.gz", packed)}, data={"suffix": "one"}).json()
    assert gateway.http.put("/v1/aliases/support", json={"model": adapter["model"]}).status_code == 201
    for name in ("support", adapter["id"], adapter["model"].replace(":", "%3A")):
        told = lineage(gateway, name)
        assert (told["model"], told["chain"][-1]["aliases"]) == (adapter["model"], ["support"])


def test_states_tell_what_is_training_and_what_is_refused_and_why(still: Gateway) -> None:
    running = create(still, suffix="coming").json()
    folder = add_adapter(still, TWO)
    still.services.registry._loader.state_of(TWO).refusal = RuntimeError("its weights aren't finite")  # type: ignore[assignment]
    told = {version["model"]: version for version in lineage(still, "base")["descendants"]}
    coming = told[running["tuneloop"]["fine_tuned_model"]]
    assert (coming["state"], coming["adapter_id"]) == ("training", None)
    assert (told[TWO]["state"], told[TWO]["reason"]) == ("refused", "its weights aren't finite")
    assert told[TWO]["adapter_id"] == folder.name


def test_what_is_deleted_and_has_nothing_beneath_it_is_in_no_tree(still: Gateway) -> None:
    make_tuned_model(still, ONE)
    make_tuned_model(still, TWO, ONE)
    make_tuned_model(still, THREE)
    for model in (ONE, THREE):
        assert still.http.delete(f"/v1/models/{model}").status_code == 200
    assert models(lineage(still, "base")["descendants"]) == [ONE, TWO]
    assert models(lineage(still, THREE)["chain"]) == ["base", THREE]


def test_a_job_that_came_to_nothing_is_in_no_tree(still: Gateway) -> None:
    job = create(still).json()
    with still.database.session() as session:
        assert states.end(session, job["id"], "cancelled")
    assert lineage(still, "base")["descendants"] == []


@pytest.mark.both_databases
def test_another_projects_checkpoint_is_in_nobody_elses_tree(still: Gateway) -> None:
    with still.database.session() as session:
        headers = [
            {"Authorization": f"Bearer {create_key(session, 'k', project=project)[1]}"} for project in ("a", "b")
        ]
    still.services.keys.invalidate()
    job = create(still, headers=headers[0]).json()
    checkpoint = job["tuneloop"]["fine_tuned_model"] + ":ckpt-step-1"
    folder = add_adapter(still, checkpoint)
    with still.database.session() as session:
        session.add(
            JobCheckpointRow(
                id=new_id("ftckpt"), job_id=job["id"], created_at=now_s(), step_number=1, model=checkpoint,
                adapter_id=folder.name, metrics={},
            )
        )  # fmt: skip
    assert models(lineage(still, checkpoint, headers[0])["chain"]) == ["base", checkpoint]
    assert lineage(still, checkpoint, headers[0])["chain"][-1]["kind"] == "checkpoint"
    assert checkpoint in models(lineage(still, "base", headers[0])["descendants"])
    assert checkpoint not in models(lineage(still, "base", headers[1])["descendants"])
    assert still.http.get(f"/v1/models/{checkpoint}/lineage", headers=headers[1]).status_code == 404


def test_an_unknown_model_has_no_lineage(still: Gateway) -> None:
    for name in ("nobody", "ft:base:personal:x:xxxxxxxx", "..%2Fx", "%00"):
        answer = still.http.get(f"/v1/models/{name}/lineage")
        assert (answer.status_code, still.error(answer)["code"]) == (404, "model_not_found")


def test_a_model_whose_name_ends_with_lineage_is_still_found(still: Gateway) -> None:
    add_adapter(still, "team/lineage")
    assert still.http.get("/v1/models/team/lineage").json()["object"] == "model"
    assert lineage(still, "team/lineage")["model"] == "team/lineage"
