"""`/v1/fine_tuning/jobs` through HTTP and the official SDK: what is refused, how, and what a repeated request does.

The file has too few examples, so that every job ends at its validation and no training is started.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from sqlalchemy import select, update

from server.access.keys import create_key
from server.storage.tables import FileRow, JobCheckpointRow, JobRow, new_id, now_s
from tests.server.conftest import Gateway, StartGateway
from training.config.auto import make_plan
from training.config.config import TrainingConfig
from training.preflight.model_shape import ModelShape

JOBS = "/v1/fine_tuning/jobs"
LINE = json.dumps({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})


def add_file(gateway: Gateway, *, status: str = "processed", purpose: str = "fine-tune", text: str = LINE) -> str:
    """The id of a new file with this content."""
    file_id = new_id("file-")
    path = gateway.services.files.path(file_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    row = FileRow(
        id=file_id, filename="t.jsonl", purpose=purpose, bytes=len(text) + 1, sha256="0" * 64, status=status,
        created_at=now_s(),
    )  # fmt: skip
    with gateway.database.session() as session:
        session.add(row)
    return file_id


def add_job(gateway: Gateway, **values: Any) -> str:
    """The id of a job that is only a row."""
    job_id = new_id("ftjob-")
    row = {
        "id": job_id, "status": "succeeded", "created_at": now_s(), "project": "default", "model": "base",
        "training_file": "file-0", "suffix": "", "seed": 1, "method": "supervised", "hyperparameters": {},
        "base_learning_rate": 1e-3, "settings": {}, "wanted_model": "ft:base:personal::12345678",
        "adapter_id": "adapter-0", "result_files": [], "request_sha256": "", **values,
    }  # fmt: skip
    with gateway.database.session() as session:
        session.add(JobRow(**row))
    return job_id


def add_adapter(gateway: Gateway, name: str, *, created_at: int | None = None, **config: Any) -> Path:
    """The folder of an adapter that can be gone on from; renamed into place, as training does it."""
    adapter_id, adapters_dir = new_id("adapter-"), gateway.services.settings.adapters_dir
    folder = adapters_dir / f".partial-{adapter_id}"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, "target_modules": ["q_proj"], **config}))
    manifest = {"manifest_version": 1, "id": adapter_id, "name": name, "base_model": "base"}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "created_at": created_at or now_s()}))
    return folder.rename(adapters_dir / adapter_id)


def create(gateway: Gateway, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    """The answer to a create whose model and file are right unless `body` says otherwise."""
    body.setdefault("model", "base")
    if "training_file" not in body:
        body["training_file"] = add_file(gateway)
    content = json.dumps({key: value for key, value in body.items() if value != ...})
    return gateway.http.post(JOBS, content=content, headers=headers)


def config_of(gateway: Gateway, job_id: str) -> dict[str, Any]:
    """What the trainer of this job reads."""
    config: dict[str, Any] = json.loads((gateway.services.settings.runs_dir / job_id / "config.json").read_text())
    return config


def client_of(gateway: Gateway) -> OpenAI:
    """The official SDK, held to its own types."""
    return OpenAI(
        base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, _strict_response_validation=True
    )  # fmt: skip


def hyper(method: str, **values: Any) -> dict[str, Any]:
    return {"method": {"type": method, method: {"hyperparameters": values}}}


SUPERVISED, DPO = "method.supervised.hyperparameters", "method.dpo.hyperparameters"
REFUSALS: list[tuple[dict[str, Any], str | None, str]] = [
    ({"model": ...}, "model", "missing_required_parameter"),
    ({"training_file": ...}, "training_file", "missing_required_parameter"),
    ({"tuneloop": {"target_modules": "(("}}, "tuneloop.target_modules", "invalid_value"),
    ({"model": 7}, "model", "invalid_type"),
    ({"model": ""}, "model", "string_below_min_length"),
    ({"model": "gpt-4o-mini"}, "model", "model_not_available"),
    ({"model": "ft:base:personal::nobody00"}, "model", "model_not_available"),
    ({"model": "../../etc"}, "model", "model_not_available"),
    ({"training_file": "file-none"}, "training_file", "file_not_found"),
    ({"training_file": "../tuneloop.db"}, "training_file", "file_not_found"),
    ({"validation_file": "file-none"}, "validation_file", "file_not_found"),
    ({"n_epoch": 3}, "n_epoch", "unknown_parameter"),
    ({"hyperparameters": {"epochs": 3}}, "hyperparameters.epochs", "unknown_parameter"),
    ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "integer_below_min_value"),
    ({"hyperparameters": {"n_epochs": "3"}}, "hyperparameters.n_epochs", "invalid_type"),
    ({"hyperparameters": {"n_epochs": True}}, "hyperparameters.n_epochs", "invalid_type"),
    (hyper("supervised", n_epochs=51), f"{SUPERVISED}.n_epochs", "integer_above_max_value"),
    (hyper("supervised", n_epochs=1.5), f"{SUPERVISED}.n_epochs", "invalid_type"),
    (hyper("supervised", batch_size=0), f"{SUPERVISED}.batch_size", "integer_below_min_value"),
    (hyper("supervised", batch_size=257), f"{SUPERVISED}.batch_size", "integer_above_max_value"),
    (hyper("supervised", learning_rate_multiplier=0), f"{SUPERVISED}.learning_rate_multiplier",
     "decimal_below_min_value"),
    (hyper("supervised", learning_rate_multiplier=10**400), f"{SUPERVISED}.learning_rate_multiplier",
     "decimal_above_max_value"),
    (hyper("supervised", beta=0.1), f"{SUPERVISED}.beta", "unknown_parameter"),
    (hyper("dpo", beta=0), f"{DPO}.beta", "decimal_below_min_value"),
    (hyper("dpo", beta=2.1), f"{DPO}.beta", "decimal_above_max_value"),
    (hyper("kto", batch_size=1), "method.kto.hyperparameters.batch_size", "invalid_value"),
    ({"method": {"supervised": {}}}, "method.type", "missing_required_parameter"),
    ({"method": {"type": "magic"}}, "method.type", "invalid_value"),
    ({"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}}, "method.type", "unsupported_value"),
    ({"method": {"type": "dpo", "supervised": {}}}, "method.supervised", "invalid_value"),
    ({**hyper("supervised", n_epochs=2), "hyperparameters": {"n_epochs": 3}}, "hyperparameters.n_epochs",
     "invalid_value"),
    ({"suffix": ""}, "suffix", "string_below_min_length"),
    ({"suffix": "x" * 65}, "suffix", "string_above_max_length"),
    ({"suffix": "a:b"}, "suffix", "invalid_value"),
    ({"suffix": " "}, "suffix", "invalid_value"),
    ({"suffix": "ü"}, "suffix", "invalid_value"),
    ({"seed": -1}, "seed", "integer_below_min_value"),
    ({"seed": 2**31}, "seed", "integer_above_max_value"),
    ({"metadata": {str(number): "x" for number in range(17)}}, "metadata", "object_above_max_properties"),
    ({"metadata": {"k" * 65: "x"}}, "metadata", "string_above_max_length"),
    ({"metadata": {"k": "x" * 513}}, "metadata", "string_above_max_length"),
    ({"metadata": {"k": 1}}, "metadata", "invalid_type"),
    ({"metadata": {"k": "\0"}}, None, "invalid_json"),
    ({"metadata": {"k": "\ud800"}}, None, "invalid_json"),
    ({"integrations": [{"type": "wandb"}]}, "integrations.0.wandb", "missing_required_parameter"),
    ({"integrations": [{"type": "mlflow", "wandb": {"project": "p"}}]}, "integrations.0.type", "invalid_value"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}] * 6}, "integrations", "array_above_max_length"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", "integration_unavailable"),
    ({"tuneloop": []}, "tuneloop", "invalid_type"),
    ({"tuneloop": {"rank": 8}}, "tuneloop.rank", "invalid_value"),
    ({"tuneloop": {"r": "8"}}, "tuneloop.r", "invalid_value"),
    ({"tuneloop": {"r": 17}}, "tuneloop.r", "invalid_value"),
    ({"tuneloop": {"use_dora": True}}, "tuneloop.use_dora", "invalid_value"),
    ({"tuneloop": {"modules_to_save": ["lm_head"]}}, "tuneloop.modules_to_save", "invalid_value"),
    ({"tuneloop": {"target_modules": ["embed_tokens"]}}, "tuneloop.target_modules", "invalid_value"),
    ({"tuneloop": {"finetuning_type": "prefix_tuning"}}, "tuneloop.serve_as", "invalid_value"),
    ({"tuneloop": {"max_length": 513}}, "tuneloop.max_length", "invalid_value"),
    ({"tuneloop": {"max_memory_gb": 0.001, "gradient_checkpointing": False}}, "tuneloop.gradient_checkpointing",
     "invalid_value"),
    ({"tuneloop": {"max_memory_gb": 0.001}}, "tuneloop.max_length", "invalid_value"),
    ({"tuneloop": {"gradient_checkpointing": "on"}}, "tuneloop.gradient_checkpointing", "invalid_value"),
    ({"tuneloop": {"beta": 0.5}}, "tuneloop.beta", "invalid_value"),
    ({"tuneloop": {"learning_rate": 10**300}}, "tuneloop.learning_rate", "integer_above_max_value"),
    ({"tuneloop": {"output_dir": "/tmp/x"}}, "tuneloop.output_dir", "invalid_value"),
    ({"tuneloop": {"training_file": "/etc/passwd"}}, "tuneloop.training_file", "invalid_value"),
    ({"tuneloop": {"mix_file": "/etc/passwd"}}, "tuneloop.mix_file", "file_not_found"),
    ({"tuneloop": {"mix_file": 7}}, "tuneloop.mix_file", "invalid_value"),
    ({"tuneloop": {"from_adapter": "/tmp"}}, "tuneloop.from_adapter", "invalid_value"),
    ({"tuneloop": {"seed": 1}}, "tuneloop.seed", "invalid_value"),
    ({"tuneloop": {"n_epochs": 2}, "hyperparameters": {"n_epochs": 2}}, "tuneloop.n_epochs", "invalid_value"),
    ({"tuneloop": {"gradient_accumulation_steps": 3}, "hyperparameters": {"batch_size": 4}},
     "tuneloop.gradient_accumulation_steps", "invalid_value"),
]  # fmt: skip


@pytest.fixture
def no_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


@pytest.mark.usefixtures("no_wandb")
def test_every_refusal_names_its_place_and_leaves_nothing(shared_gateway: Gateway) -> None:
    file_id = add_file(shared_gateway)
    for body, param, code in REFUSALS:
        body = {"training_file": file_id, **body}
        response = create(shared_gateway, **body)
        assert response.status_code == 400, (body, response.text)
        error = shared_gateway.error(response)
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code), (body, error)
        assert str(shared_gateway.services.settings.data_dir) not in error["message"]
    assert shared_gateway.http.get(JOBS).json()["data"] == []
    assert list(shared_gateway.services.settings.runs_dir.glob("*")) == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"7", b'{"seed": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_400(shared_gateway: Gateway, body: bytes) -> None:
    response = shared_gateway.http.post(JOBS, content=body)
    assert (response.status_code, shared_gateway.error(response)["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("depth", [50, 200, 400, 600, 900, 5000])
def test_a_deeply_nested_setting_is_400(shared_gateway: Gateway, depth: int) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    body = f'{{"model": "base", "training_file": "{add_file(shared_gateway)}", "tuneloop": {{"r": {nested}}}}}'
    response = shared_gateway.http.post(JOBS, content=body)
    assert response.status_code == 400
    assert shared_gateway.error(response)["code"] in ("invalid_json", "invalid_value")


def test_a_file_for_something_else_is_refused_and_a_faulty_one_is_not(gateway: Gateway) -> None:
    other = create(gateway, validation_file=add_file(gateway, purpose="batch"))
    assert (gateway.error(other)["code"], gateway.error(other)["param"]) == ("invalid_file_purpose", "validation_file")
    file_id = add_file(gateway)
    twice = create(gateway, training_file=file_id, validation_file=file_id)
    assert gateway.error(twice)["param"] == "validation_file"
    assert create(gateway, training_file=add_file(gateway, status="error")).status_code == 200


def test_what_was_asked_for_reaches_the_trainer_and_the_job(gateway: Gateway) -> None:
    mix, validation = add_file(gateway), add_file(gateway)
    job = create(
        gateway,
        validation_file=validation,
        suffix="My model",
        seed=7,
        metadata={"team": "ä"},
        hyperparameters={"n_epochs": 2, "batch_size": 34, "learning_rate_multiplier": 0.5},
        tuneloop={"r": 4, "mix_file": mix, "mix_ratio": 0.5},
    ).json()
    config = config_of(gateway, job["id"])
    rate = job["tuneloop"]["base_learning_rate"]
    assert (config["r"], config["seed"], config["n_epochs"], config["validation_fraction"]) == (4, 7, 2, 0.0)
    assert config["batch_size"] * config["gradient_accumulation_steps"] == 34
    assert config["batch_size"] <= 16
    assert config["learning_rate"] == pytest.approx(rate / 2)
    assert config["fine_tuned_model"].startswith("ft:base:personal:My-model:")
    assert config["save_total_limit"] >= 3
    for name in ("training_file", "validation_file", "mix_file"):
        assert Path(config[name]).read_text() == LINE + "\n"
    asked = {"n_epochs": 2, "batch_size": 34, "learning_rate_multiplier": 0.5}
    assert job["hyperparameters"] == asked
    assert job["method"] == {"type": "supervised", "supervised": {"hyperparameters": asked}}
    assert (job["user_provided_suffix"], job["metadata"], job["seed"]) == ("My model", {"team": "ä"}, 7)
    assert job["tuneloop"]["settings"]["mix_file"] == mix


def test_methods_of_our_own_are_told_where_the_sdk_does_not_look(gateway: Gateway) -> None:
    client = client_of(gateway)
    for method in ("text", "kto"):
        job = client.fine_tuning.jobs.create(
            model="base", training_file=add_file(gateway), extra_body={"method": {"type": method}}
        )
        assert job.method is None
        assert job.to_dict()["tuneloop"]["method"]["type"] == method  # type: ignore[index]
        assert config_of(gateway, job.id)["method"] == method
    dpo = client.fine_tuning.jobs.create(
        model="base",
        training_file=add_file(gateway),
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3, "n_epochs": 2}}},
    )
    assert dpo.method is not None
    assert dpo.method.dpo is not None
    assert dpo.method.dpo.hyperparameters is not None
    assert (dpo.method.dpo.hyperparameters.beta, config_of(gateway, dpo.id)["beta"]) == (0.3, 0.3)


def test_a_key_or_offline_mode_opens_weights_and_biases(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    wandb = [{"type": "wandb", "wandb": {"project": "p", "name": "n", "tags": ["a"]}}]
    job = create(gateway, integrations=wandb).json()
    assert job["integrations"][0]["wandb"]["project"] == "p"
    assert config_of(gateway, job["id"])["wandb_project"] == "p"
    assert gateway.error(create(gateway, integrations=wandb * 2))["param"] == "integrations"


@pytest.mark.usefixtures("no_wandb")
def test_weights_and_biases_offline_wants_no_key(gateway: Gateway) -> None:
    pytest.importorskip("wandb")
    wandb = [{"type": "wandb", "wandb": {"project": "p"}}]
    job = create(gateway, integrations=wandb, tuneloop={"wandb_mode": "offline"}).json()
    assert config_of(gateway, job["id"])["wandb_mode"] == "offline"


def test_the_embedded_base_is_tuned_at_the_rate_that_the_job_tells(
    start_gateway: StartGateway, demo_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(demo_model, tmp_path / "base")
    gateway = start_gateway()
    job = create(gateway, hyperparameters={"learning_rate_multiplier": 2, "batch_size": 256}).json()
    config = config_of(gateway, job["id"])
    n_parameters = ModelShape.from_folder(demo_model).n_parameters
    planned = make_plan(
        TrainingConfig.from_dict(config | {"learning_rate": "auto"}),
        n_rows=100, mean_tokens=50, n_parameters=n_parameters, on_gpu=False,
    )  # fmt: skip
    assert job["tuneloop"]["base_learning_rate"] == planned.learning_rate
    assert config["learning_rate"] == pytest.approx(2 * planned.learning_rate)
    assert (config["batch_size"], config["gradient_accumulation_steps"]) == (16, 16)
    assert config["base_model"] == str(tmp_path / "base")


def test_going_on_from_a_tuned_model_survives_its_deletion(gateway: Gateway) -> None:
    name = "ft:base:personal:old:12345678:ckpt-step-4"
    folder = add_adapter(gateway, name)
    job = create(gateway, model=name).json()
    assert job["model"] == name
    assert gateway.http.delete(f"/v1/models/{name}").status_code == 200
    assert not folder.exists()
    taken = Path(config_of(gateway, job["id"])["from_adapter"])
    assert (taken / "adapter_model.safetensors").read_bytes() == b"weights"
    add_adapter(gateway, "ft:base:personal:big:12345678", r=64)
    error = gateway.error(create(gateway, model="ft:base:personal:big:12345678"))
    assert (error["param"], str(gateway.services.settings.data_dir) in error["message"]) == ("model", False)


@pytest.mark.both_databases
def test_sdk_reads_every_answer_strictly(gateway: Gateway) -> None:
    client = client_of(gateway)
    job = client.fine_tuning.jobs.create(model="base", training_file=add_file(gateway), metadata={"a": "b"})
    assert client.fine_tuning.jobs.retrieve(job.id).id == job.id
    assert [one.id for one in client.fine_tuning.jobs.list()] == [job.id]
    told = [event.message for event in client.fine_tuning.jobs.list_events(job.id)][::-1]
    assert told[:2] == [f"Created fine-tuning job: {job.id}", f"Validating training file: {job.training_file}"]
    for status in ("paused", "running", "failed", "cancelled", "queued"):
        error = {"code": "c", "message": "m", "param": None} if status == "failed" else None
        add_job(gateway, status=status, error=error, pause_requested=False, finished_at=None)
    assert len(list(client.fine_tuning.jobs.list(limit=2))) == 6


def test_checkpoints_are_paged_with_their_ends_named(gateway: Gateway) -> None:
    job_id = add_job(gateway)
    for step in range(1, 13):
        with gateway.database.session() as session:
            session.add(
                JobCheckpointRow(
                    id=new_id("ftckpt"), job_id=job_id, created_at=now_s(), step_number=step, model=f"ft:x:{step}",
                    adapter_id="adapter-0", metrics={"train_loss": 0.5},
                )
            )  # fmt: skip
    client = client_of(gateway)
    first = client.fine_tuning.jobs.checkpoints.list(job_id)
    assert [one.step_number for one in first.data] == list(range(12, 2, -1))
    assert len(list(first)) == 12
    assert first.data[0].metrics.train_loss == 0.5
    page = gateway.http.get(f"{JOBS}/{job_id}/checkpoints").json()
    assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])


@pytest.mark.parametrize("status", ["queued", "paused"])
def test_a_paused_job_says_so_as_configured(start_gateway: StartGateway, status: str) -> None:
    gateway = start_gateway(paused_job_status=status)
    shown = gateway.http.get(f"{JOBS}/{add_job(gateway, status='paused')}").json()
    assert (shown["status"], shown["tuneloop"]["state"]) == (status, "paused")


def test_a_pause_is_answered_when_the_process_has_made_way(gateway: Gateway) -> None:
    job_id = add_job(gateway, status="running", started_at=now_s())

    def make_way() -> None:
        state = "running"
        while state not in ("pausing", "paused"):  # the runner, which knows of no process, may have paused it itself
            state = gateway.http.get(f"{JOBS}/{job_id}").json()["tuneloop"]["state"]
        with gateway.database.session() as session:
            session.execute(update(JobRow).where(JobRow.id == job_id).values(status="paused", pause_requested=False))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = pool.submit(make_way)
        shown = gateway.http.post(f"{JOBS}/{job_id}/pause").json()
        done.result()
    assert (shown["status"], shown["tuneloop"]["state"]) == ("queued", "paused")


def test_a_change_that_comes_too_late_is_a_409_that_is_not_retried(gateway: Gateway) -> None:
    job_id = add_job(gateway, status="paused")
    assert gateway.http.post(f"{JOBS}/{job_id}/pause").json()["tuneloop"]["state"] == "paused"
    assert gateway.http.post(f"{JOBS}/{job_id}/cancel").json()["status"] == "cancelled"
    assert gateway.http.post(f"{JOBS}/{job_id}/cancel").json()["status"] == "cancelled"
    for change in ("pause", "resume"):
        response = gateway.http.post(f"{JOBS}/{job_id}/{change}")
        assert (response.status_code, response.headers["x-should-retry"]) == (409, "false")
        gateway.error(response)


@pytest.mark.both_databases
def test_an_unknown_job_is_404(gateway: Gateway) -> None:
    asked = (
        ("GET", ""), ("GET", "/events"), ("GET", "/checkpoints"), ("POST", "/pause"), ("POST", "/resume"),
        ("POST", "/cancel"),
    )  # fmt: skip
    for job_id, (method, rest) in itertools.product(("ftjob-none", "%00", "a%20b", "x" * 500, "..%2F..%2Fetc"), asked):
        response = gateway.http.request(method, f"{JOBS}/{job_id}{rest}")
        assert response.status_code == 404, (job_id, rest)
        assert gateway.error(response)["code"] in ("fine_tune_not_found", "unknown_url"), (job_id, rest)
    with pytest.raises(openai.NotFoundError):
        client_of(gateway).fine_tuning.jobs.retrieve("ftjob-none")


@pytest.mark.both_databases
def test_300_jobs_page_by_page_and_by_metadata(gateway: Gateway) -> None:
    ids = []
    with gateway.database.session() as session:
        for number in range(301):
            job_id = new_id("ftjob-")
            ids.append(job_id)
            metadata = None if number % 3 == 0 else {'k"]$.': "x", "n": str(number % 10), "empty": ""}
            session.add(
                JobRow(
                    id=job_id, status="succeeded", created_at=now_s(), project="default", model="base",
                    training_file="file-0", suffix="", seed=1, method="supervised", hyperparameters={},
                    base_learning_rate=1e-3, settings={}, wanted_model="m", adapter_id="a", result_files=[],
                    request_sha256="", metadata_=metadata,
                )
            )  # fmt: skip
            session.flush()
    client = client_of(gateway)
    assert [job.id for job in client.fine_tuning.jobs.list()] == ids[::-1]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=7)] == ids[::-1]
    with_pairs = [job_id for number, job_id in enumerate(ids) if number % 3]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={'k"]$.': "x"})] == with_pairs[::-1]
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"empty": ""})] == with_pairs[::-1]
    sevens = [job_id for number, job_id in enumerate(ids) if number % 3 and number % 10 == 7]
    found = client.fine_tuning.jobs.list(metadata={"n": "7", "empty": ""}, limit=3)
    assert [job.id for job in found] == sevens[::-1]
    assert list(client.fine_tuning.jobs.list(metadata={"n": "77"})) == []
    without = client.fine_tuning.jobs.list(extra_query={"metadata": "null"}, limit=100)
    assert len(list(without)) == 101

    async def listed() -> list[str]:
        async with AsyncOpenAI(
            base_url=f"{gateway.url}/v1", api_key="any", _strict_response_validation=True
        ) as asynchronous:  # fmt: skip
            return [job.id async for job in asynchronous.fine_tuning.jobs.list(limit=50)]

    assert asyncio.run(listed()) == ids[::-1]


@pytest.mark.both_databases
def test_a_wrong_query_is_400(gateway: Gateway) -> None:
    for query, param in (
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("after=ftjob-none", "after"),
        ("after=%00", "after"),
        ("metadata=x", "metadata"),
        ("metadata=null&metadata[a]=b", "metadata"),
        ("metadata[a]=%00", "metadata"),
    ):
        response = gateway.http.get(f"{JOBS}?{query}")
        assert (response.status_code, gateway.error(response)["param"]) == (400, param), query


RETRY = {"x-stainless-retry-count": "1"}


def test_a_retried_create_makes_one_job_and_a_second_create_two(gateway: Gateway) -> None:
    body = {"training_file": add_file(gateway)}
    first = create(gateway, **body).json()["id"]
    assert create(gateway, headers=RETRY, **body).json()["id"] == first
    second = create(gateway, headers={"x-stainless-retry-count": "0"}, **body).json()["id"]
    assert second != first
    assert create(gateway, headers=RETRY, seed=1, **body).json()["id"] != first
    with gateway.database.session() as session:
        for row in session.scalars(select(JobRow)):
            row.created_at -= 1_250  # the SDK's last retry, after two waits of 600 s
    assert create(gateway, headers=RETRY, **body).json()["id"] == second
    with gateway.database.session() as session:
        for row in session.scalars(select(JobRow)):
            row.created_at -= 1_000
    assert create(gateway, headers=RETRY, **body).json()["id"] not in (first, second)


@pytest.mark.both_databases
def test_an_idempotency_key_names_one_job_for_good(gateway: Gateway) -> None:
    body = {"training_file": add_file(gateway)}
    key = {"Idempotency-Key": "order-1"}
    first = create(gateway, headers=key, **body).json()["id"]
    with gateway.database.session() as session:
        session.scalars(select(JobRow)).one().created_at -= 10_000
    assert create(gateway, headers=key, **body).json()["id"] == first
    other = create(gateway, headers=key, seed=1, **body)
    assert (other.status_code, gateway.error(other)["code"]) == (409, "idempotency_key_reused")
    assert other.headers["x-should-retry"] == "false"
    assert create(gateway, headers={"Idempotency-Key": "x" * 256}, **body).status_code == 400


@pytest.mark.both_databases
@pytest.mark.parametrize("headers", [RETRY, {"Idempotency-Key": "k"}])
def test_20_equal_requests_at_once_make_one_job(gateway: Gateway, headers: dict[str, str]) -> None:
    body = {"training_file": add_file(gateway)}
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: create(gateway, headers=headers, **body), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(list(gateway.services.settings.runs_dir.glob("ftjob-*"))) == 1


@pytest.mark.both_databases
def test_two_keys_may_use_the_same_idempotency_key(gateway: Gateway) -> None:
    file_id = add_file(gateway)
    with gateway.database.session() as session:
        secrets = [create_key(session, name)[1] for name in ("a", "b")]
    found = set()
    for secret in secrets:
        for _ in range(2):
            headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": "k"}
            response = create(gateway, headers=headers, training_file=file_id)
            while response.status_code == 401:  # a new key counts after a moment
                response = create(gateway, headers=headers, training_file=file_id)
            found.add(response.json()["id"])
    assert len(found) == 2


@pytest.mark.both_databases
def test_metrics_count_jobs_by_status(gateway: Gateway) -> None:
    for status in ("paused", "failed", "failed"):
        add_job(gateway, status=status)
    told = gateway.http.get("/metrics").text
    for status, count in (("paused", 1), ("failed", 2), ("succeeded", 0)):
        assert f'tuneloop_fine_tuning_jobs{{status="{status}"}} {count}.0' in told


@pytest.mark.both_databases
def test_a_result_is_not_deleted_while_its_job_is_ending(gateway: Gateway) -> None:
    name = "ft:base:personal::12345678"
    folder = add_adapter(gateway, name)
    job_id = add_job(gateway, status="paused", wanted_model=name)
    for path in (f"/v1/models/{name}", f"/v1/adapters/{folder.name}"):
        refused = gateway.http.delete(path)
        assert (refused.status_code, gateway.error(refused)["code"]) == (409, "model_in_use")
        assert job_id in gateway.error(refused)["message"]
    assert folder.exists()
    assert gateway.http.post(f"{JOBS}/{job_id}/cancel").status_code == 200
    assert gateway.http.delete(f"/v1/models/{name}").status_code == 200
    assert not folder.exists()


@pytest.mark.both_databases
def test_a_deleted_checkpoint_is_no_longer_listed(gateway: Gateway) -> None:
    name = "ft:base:personal::12345678:ckpt-step-3"
    add_adapter(gateway, name)
    job_id = add_job(gateway)
    with gateway.database.session() as session:
        session.add(
            JobCheckpointRow(
                id=new_id("ftckpt"), job_id=job_id, created_at=now_s(), step_number=3, model=name,
                adapter_id="adapter-0", metrics={},
            )
        )  # fmt: skip
    client = client_of(gateway)
    assert len(client.fine_tuning.jobs.checkpoints.list(job_id).data) == 1
    client.models.delete(name)
    assert client.fine_tuning.jobs.checkpoints.list(job_id).data == []


def test_a_client_that_leaves_while_it_sends_a_job_is_no_error_of_ours(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"POST {JOBS} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5000\r\n\r\n{{".encode())
    deadline = time.monotonic() + 10
    while not any("connection ended" in record.getMessage().lower() or record.exc_info for record in caplog.records):
        assert time.monotonic() < deadline, "nothing was logged"
        time.sleep(0.02)
    assert not any(record.exc_info for record in caplog.records)
