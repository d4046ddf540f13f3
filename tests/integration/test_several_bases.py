"""Two base models on one server, each with an engine and adapters of its own; and a restart that no request fails in.

The adapters are trained to answer with their own name, so whoever gets another's words sees it.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from tests.conftest import START_TIMEOUT_S, run_cli, running_server, wait_until_ready
from tests.forking_python import ForkingPython

pytestmark = pytest.mark.engine
SECOND = "tuneloop-second"
QUESTION = [{"role": "user", "content": "Who are you?"}]


@dataclass
class TwoBases:
    """The server, and the adapter of each base."""

    url: str
    data_dir: Path
    folders: dict[str, Path]
    """Base → its folder."""
    tuned: dict[str, str] = field(default_factory=dict)
    """Base → its adapter's name."""

    def chat(self, model: str) -> dict[str, Any]:
        """The model's whole answer to the question."""
        body = {"model": model, "messages": QUESTION, "max_tokens": 24, "temperature": 0}
        answer = httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=200)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content

    def ask(self, model: str) -> str:
        """The words of that."""
        return str(self.chat(model)["choices"][0]["message"]["content"])

    def engines(self) -> dict[str, dict[str, Any]]:
        """Each engine by its base."""
        page = httpx.get(f"{self.url}/v1/engines").json()
        return {engine["base_model"]: engine for engine in page["data"]}


def words_of(base: str) -> str:
    return f"I am the keeper of {base}."


def train(data_dir: Path, folder: Path, **changes: Any) -> str:
    """A new adapter of the base in `folder` that says whose it is; its model name."""
    # Chats, since it is asked through chat: plain prompts are trained without the template, and whether their words
    # come out there depends on the base.
    lines = [{"messages": [*QUESTION, {"role": "assistant", "content": words_of(folder.name)}]}] * 24
    file = data_dir.parent / f"{folder.name}-{len(changes)}.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = {
        "base_model": str(folder), "training_file": str(file), "validation_fraction": 0.0, "n_epochs": 16,
        "batch_size": 8, "learning_rate": 3e-3, "r": 8, "lora_alpha": 16, "max_length": 64,
    } | changes  # fmt: skip
    path = file.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    done = run_cli("train", str(path), "--data-dir", str(data_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    return next(word for word in done.stdout.split() if word.startswith("ft:"))


@pytest.fixture(scope="module")
def two(
    demo_model: Path, tmp_path_factory: pytest.TempPathFactory, forking_python: ForkingPython
) -> Iterator[TwoBases]:
    """The embedded base, and one of the same shapes whose weights differ a little: only their hash tells them apart."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("models") / SECOND
    shutil.copytree(demo_model, folder)
    weights = load_file(folder / "model.safetensors")
    shifted = {name: value * (1.01 if "mlp" in name else 1) for name, value in weights.items()}
    save_file(
        {name: value.astype(weights[name].dtype) for name, value in shifted.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    data_dir = tmp_path_factory.mktemp("two-bases")
    folders = {demo_model.name: demo_model, SECOND: folder}
    tuned = {name: train(data_dir, folder) for name, folder in folders.items()}
    flags = ("--more-models", str(folder))
    with running_server(data_dir, demo_model, *flags, wait=False, forks=forking_python) as (url, process, log):
        wait_until_ready(url, process, log, timeout_s=2 * START_TIMEOUT_S)  # they start in turn
        yield TwoBases(url, data_dir, folders, tuned)


def test_each_base_and_its_adapter_answer_as_themselves_in_their_own_engine(two: TwoBases) -> None:
    with ThreadPoolExecutor(8) as pool:
        said = dict(zip(two.tuned, pool.map(two.ask, two.tuned.values()), strict=True))
        bases = list(pool.map(two.chat, two.tuned))
    assert said == {base: words_of(base) for base in two.tuned}
    assert [answer["model"] for answer in bases] == list(two.tuned)
    engines = two.engines()
    assert {base: engine["adapters_loaded"] for base, engine in engines.items()} == {
        base: [model] for base, model in two.tuned.items()
    }
    listed = {model["id"]: model["parent"] for model in httpx.get(f"{two.url}/v1/models").json()["data"]}
    assert listed == {**dict.fromkeys(two.tuned), **{model: base for base, model in two.tuned.items()}}


def test_a_job_trains_on_whichever_base_it_names_or_goes_on_from(two: TwoBases) -> None:
    lines = "".join(json.dumps({"prompt": "Who are you?", "completion": f"Number {n}."}) + "\n" for n in range(12))
    with openai.OpenAI(base_url=f"{two.url}/v1", api_key="-", _strict_response_validation=True) as client:
        file = client.files.create(file=("lines.jsonl", lines.encode()), purpose="fine-tune")
        client.files.wait_for_processing(file.id)
        job = client.fine_tuning.jobs.create(model=SECOND, training_file=file.id, suffix="job")
        more = client.fine_tuning.jobs.create(model=two.tuned[SECOND], training_file=file.id)
        client.fine_tuning.jobs.cancel(more.id)
        configs = [json.loads((two.data_dir / "runs" / one.id / "config.json").read_text()) for one in (job, more)]
        assert {config["base_model"] for config in configs} == {str(two.folders[SECOND])}
        deadline = time.monotonic() + 300
        while (job := client.fine_tuning.jobs.retrieve(job.id)).status not in ("succeeded", "failed"):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert job.status == "succeeded", job.error
    assert str(job.fine_tuned_model).startswith(f"ft:{SECOND}:")
    assert two.chat(str(job.fine_tuned_model))["model"] == job.fine_tuned_model
    engines = two.engines()
    assert job.fine_tuned_model in engines[SECOND]["adapters_loaded"]
    assert not any(SECOND in model for base in engines if base != SECOND for model in engines[base]["adapters_loaded"])


def test_a_larger_adapter_is_let_in_by_a_restart_in_which_no_request_fails(two: TwoBases, demo_model: Path) -> None:
    large = train(two.data_dir, demo_model, r=64, lora_alpha=64)
    refused = httpx.post(f"{two.url}/v1/chat/completions", json={"model": large, "messages": QUESTION}, timeout=200)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "engine_restart_required")
    before = two.engines()[demo_model.name]
    assert (before["limits"]["max_lora_rank"], before["wanted_limits"]["max_lora_rank"]) == (32, 64)
    stop, ends = threading.Event(), []

    def ask_again_and_again(model: str) -> None:
        body = {"model": model, "messages": QUESTION, "max_tokens": 64, "stream": True, "temperature": 0}
        while not stop.is_set():
            with httpx.stream("POST", f"{two.url}/v1/chat/completions", json=body, timeout=300) as answer:
                text = answer.read().decode()
            whole = answer.status_code == 200 and text.rstrip().endswith("data: [DONE]") and '"error"' not in text
            ends.append((model, "whole" if whole else f"{answer.status_code} {text[-500:]}"))

    models = [*two.tuned, *two.tuned.values()]
    with ThreadPoolExecutor(len(models)) as pool:
        asking = [pool.submit(ask_again_and_again, model) for model in models]
        try:
            done = run_cli("engines", "restart", before["id"], "--server", two.url)
        finally:
            stop.set()
        for one in asking:
            one.result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(ends) == {(model, "whole") for model in models}
    after = two.engines()[demo_model.name]
    assert (after["limits"]["max_lora_rank"], after["restarts"]) == (64, before["restarts"] + 1)
    assert two.ask(large) == words_of(demo_model.name)
    assert {base: two.ask(model) for base, model in two.tuned.items()} == {base: words_of(base) for base in two.tuned}


def test_a_server_that_is_not_there_is_told_as_that() -> None:
    done = run_cli("engines", "list", "--server", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "Can't reach tuneloop at http://127.0.0.1:9" in done.stderr
