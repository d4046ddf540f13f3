"""`POST /v1/fine_tuning/preflight`: what would become of a job, told before there is one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.jobs.run.queue import Runner
from tests.server.conftest import Gateway, StartGateway
from tests.server.jobs.test_fine_tuning_api import LINE, add_file, add_job

PREFLIGHT = "/v1/fine_tuning/preflight"
TIMEOUT_S = 120.0
"""A process with torch starts in four seconds; on a busy machine in thirty."""
TOOL = {"type": "function", "function": {"name": "quote", "parameters": {"type": "object", "properties": {}}}}
TWELVE = "\n".join(
    json.dumps({"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]})
    for n in range(12)
)


@pytest.fixture
def on_demo(start_gateway: StartGateway, demo_model: Path) -> Gateway:
    """A gateway whose base has the embedded one's files."""
    gateway = start_gateway()
    use_files_of(gateway, demo_model)
    return gateway


def use_files_of(gateway: Gateway, model: Path) -> None:
    """From now on the gateway's base has this model's tokenizer and sizes."""
    pool = gateway.services.registry.base_pool("base")
    assert pool is not None
    object.__setattr__(pool, "base", replace(pool.base, path=model))


def ask(gateway: Gateway, **body: Any) -> dict[str, Any]:
    """The preflight of a request whose model is right unless `body` says otherwise."""
    response = gateway.http.post(PREFLIGHT, json={"model": "base"} | body, timeout=TIMEOUT_S)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    assert found["object"] == "fine_tuning.preflight"
    return found


async def asleep(_runner: Runner) -> None:
    """In place of the runner's start: what is queued stays so."""


def test_a_job_that_can_run_is_told_with_its_memory_steps_time_and_hyperparameters(
    start_gateway: StartGateway, demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runner, "start", asleep)
    on_demo = start_gateway()
    use_files_of(on_demo, demo_model)
    add_job(on_demo, status="queued")
    found = ask(
        on_demo, training_file=add_file(on_demo, status="uploaded", text=TWELVE), hyperparameters={"n_epochs": 2}
    )
    assert (found["ready"], found["fits"], found["servable"], found["problems"]) == (True, True, True, [])
    assert found["hyperparameters"]["n_epochs"] == 2
    assert found["hyperparameters"]["learning_rate"] > 0
    assert found["hyperparameters"]["gradient_checkpointing"] is False
    assert any(note.startswith("`gradient_checkpointing` false: without it") for note in found["notes"])
    assert found["steps"] * found["hyperparameters"]["batch_size"] >= 24
    assert (found["examples"], found["training_rows"], found["jobs_ahead"]) == (12, 12, 1)
    assert found["trained_tokens"] > 24
    assert found["seconds"] > 0
    parts = [size for name, size in found["memory"].items() if name != "total"]
    assert sum(parts) == found["memory"]["total"] < found["free_bytes"]
    assert len(on_demo.http.get("/v1/fine_tuning/jobs").json()["data"]) == 1


def test_a_run_that_is_too_large_does_not_fit_and_says_what_to_change(on_demo: Gateway) -> None:
    file_id = add_file(on_demo, text=TWELVE)
    found = ask(on_demo, training_file=file_id, tuneloop={"max_memory_gb": 0.2})
    assert (found["ready"], found["fits"], found["servable"]) == (False, False, True)
    assert any("`max_memory_gb` allows 0.20 GB" in problem["message"] for problem in found["problems"])


def test_a_result_that_the_engine_cannot_load_is_not_servable(on_demo: Gateway) -> None:
    found = ask(on_demo, training_file=add_file(on_demo, text=TWELVE), tuneloop={"r": 64})
    assert (found["ready"], found["servable"]) == (False, False)
    (problem,) = found["problems"]
    assert problem["param"] == "tuneloop.r"
    assert "the engine supports ranks up to 16" in problem["message"]


def test_calls_that_the_base_does_not_render_are_problems_and_lost_tools_a_note(
    on_demo: Gateway, demo_model: Path, tmp_path: Path
) -> None:
    without_tools = shutil.copytree(
        demo_model, tmp_path / "without_tools", ignore=shutil.ignore_patterns("*.safetensors")
    )
    (without_tools / "chat_template.jinja").write_text(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    function = {"name": "quote", "arguments": "{}"}
    call = {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}]}
    record = {"messages": [{"role": "user", "content": "Price?"}, call], "tools": [TOOL]}
    text = {"role": "assistant", "content": "Ten."}
    file_id = add_file(on_demo, text=f"{TWELVE}\n" + "\n".join(
        json.dumps(record | {"messages": [record["messages"][0], said]}) for said in (call, text)
    ))  # fmt: skip
    use_files_of(on_demo, without_tools)
    found = ask(on_demo, training_file=file_id)
    (problem,) = [problem for problem in found["problems"] if problem["code"] == "unlearnable"]
    assert "line 13: the base model's chat template doesn't render the call of \"quote\"" in problem["message"]
    assert "not rendered by the base model's chat template: tools in 2, tool calls in 1" in found["notes"]


def test_faults_of_the_file_are_found_before_the_job_is_made(gateway: Gateway) -> None:
    found = ask(gateway, training_file=add_file(gateway, text=LINE + '\n{"messages": []}'))
    (problem,) = [problem for problem in found["problems"] if problem["param"] == "training_file"]
    assert problem["code"] == "invalid_training_file"
    assert "line 2" in problem["message"]
    few = ask(gateway, training_file=add_file(gateway, text=LINE))
    assert "invalid_n_examples" in [problem["code"] for problem in few["problems"]]


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"training_file": "file-none"}, "training_file", "file_not_found"),
        ({}, "training_file", "missing_required_parameter"),
        ({"model": "gpt-4o-mini"}, "model", "model_not_available"),
        ({"suffix": "a:b"}, "suffix", "invalid_value"),
        ({"tuneloop": {"r": 1000}}, "tuneloop.r", "invalid_value"),
        ({"tuneloop": {"output_dir": "/tmp/x"}}, "tuneloop.output_dir", "invalid_value"),
    ],
)
def test_what_create_would_refuse_is_a_problem_and_no_error(
    shared_gateway: Gateway, body: dict[str, Any], param: str, code: str
) -> None:
    if "training_file" not in body and param != "training_file":
        body = {"training_file": add_file(shared_gateway), **body}
    found = ask(shared_gateway, **body)
    assert (found["ready"], found["fits"], found["memory"]) == (False, None, None)
    assert (found["problems"][0]["param"], found["problems"][0]["code"]) == (param, code)


def test_a_body_that_is_no_json_object_is_refused(shared_gateway: Gateway) -> None:
    for body in (b"[]", b"{", b""):
        response = shared_gateway.http.post(PREFLIGHT, content=body)
        assert (response.status_code, shared_gateway.error(response)["code"]) == (400, "invalid_json")
