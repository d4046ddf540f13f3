"""One processor for engine and training: what is answered while a real job trains, and that both get on afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.machine.device import core_groups
from tests.conftest import running_server
from tests.forking_python import ForkingPython
from training.demo.examples import EXAMPLES

pytestmark = pytest.mark.engine
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Place:
    """A server that shares its processor by some policy."""

    client: httpx.Client
    base: str
    data_dir: Path

    def create_job(self, **settings: Any) -> str:
        with EXAMPLES.open("rb") as content:
            file = self.client.post("/v1/files", data={"purpose": "fine-tune"}, files={"file": content}).json()["id"]
        self.until(lambda: self.client.get(f"/v1/files/{file}").json()["status"] == "processed", "")
        body = {"model": self.base, "training_file": file, "seed": 1, "suffix": "both", "tuneloop": settings}
        response = self.client.post("/v1/fine_tuning/jobs", json=body)
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.client.get(f"/v1/fine_tuning/jobs/{job_id}").json())

    def list_events(self, job_id: str) -> list[str]:
        events = self.client.get(f"/v1/fine_tuning/jobs/{job_id}/events", params={"limit": 100}).json()["data"]
        return [event["message"] for event in events]

    def ask(self, model: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
        return self.client.post("/v1/chat/completions", json=body | {"temperature": 0, "max_tokens": 8})

    def until(self, holds: Callable[[], Any], job_id: str) -> Any:
        """What it gives, once that is true."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if found := holds():
                return found
            time.sleep(0.1)
        raise AssertionError(f"It never came: {job_id and (self.job(job_id), self.list_events(job_id))}")

    def trains(self, job_id: str) -> bool:
        return any(message.startswith("Step ") for message in self.list_events(job_id))

    def ended(self, job_id: str) -> dict[str, Any] | None:
        job = self.job(job_id)
        return job if job["status"] in ("succeeded", "failed", "cancelled") else None


@contextmanager
def sharing(demo_model: Path, data_dir: Path, *flags: str, forks: ForkingPython | None = None) -> Iterator[Place]:
    with (
        running_server(data_dir, demo_model, *flags, forks=forks) as (url, _, _),
        httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        yield Place(client, demo_model.name, data_dir)


def processes_with(words: str) -> dict[int, str]:
    """Pid → the cores that it may use, of the processes whose command or name holds these words."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().replace("\0", " ")
            allowed = (folder / "status").read_text().partition("Cpus_allowed_list:")[2].split()[0]
        except (OSError, IndexError):
            continue
        if words in command:
            found[int(folder.name)] = allowed
    return found


def test_stop_frees_the_machine_for_a_job_and_the_engine_is_back_with_its_model(
    demo_model: Path, tmp_path_factory: pytest.TempPathFactory, forking_python: ForkingPython
) -> None:
    data_dir = tmp_path_factory.mktemp("stop")
    flags = ("--accelerator-policy", "stop", "--engine-wait-s", "0.5")
    with sharing(demo_model, data_dir, *flags, forks=forking_python) as place:
        before = place.ask(place.base).json()["choices"][0]["message"]["content"]
        job_id = place.create_job(max_steps=20)
        place.until(lambda: place.trains(job_id), job_id)
        assert not (data_dir / "engine" / "engine.json").exists()
        refused = place.ask(place.base)
        assert refused.status_code == 503
        assert "A fine-tuning job is using the accelerator" in refused.json()["error"]["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        job = place.until(lambda: place.ended(job_id), job_id)
        assert job["status"] == "succeeded", job["error"]
        assert "The job is waiting for the engine to finish its requests and free memory" in place.list_events(job_id)
        assert place.ask(job["fine_tuned_model"]).status_code == 200
        assert place.ask(place.base).json()["choices"][0]["message"]["content"] == before

        cancelled = place.create_job(max_steps=4000)
        place.until(lambda: place.trains(cancelled), cancelled)
        place.client.post(f"/v1/fine_tuning/jobs/{cancelled}/cancel")
        place.until(lambda: place.client.get("/readyz").status_code == 200, cancelled)
        assert place.ask(job["fine_tuned_model"]).status_code == 200


@pytest.mark.skipif(len(core_groups()) < 2, reason="a processor with one core can't be divided")
def test_separate_gives_engine_and_training_cores_of_their_own(
    demo_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data_dir = tmp_path_factory.mktemp("separate")
    first, *rest = (core for group in core_groups() for core in group)
    flags = ("--accelerator-policy", "separate", "--engine-devices", str(first))
    with sharing(demo_model, data_dir, *flags) as place:
        session = json.loads((data_dir / "engine" / "engine.json").read_text())["session"]
        status = Path(f"/proc/{session}/status").read_text()
        assert status.partition("Cpus_allowed_list:")[2].split()[0] == str(first)
        job_id = place.create_job(max_steps=20)
        place.until(lambda: place.trains(job_id), job_id)
        training = processes_with(str(data_dir / "runs" / job_id))
        assert training
        assert str(first) not in {core for allowed in training.values() for core in _cores(allowed)}
        assert place.ask(place.base).status_code == 200
        job = place.until(lambda: place.ended(job_id), job_id)
        assert job["status"] == "succeeded", job["error"]
        assert place.ask(job["fine_tuned_model"]).status_code == 200
    assert rest


def _cores(allowed: str) -> Iterator[str]:
    """Each of the cores in a list such as 0-3,5."""
    for part in allowed.split(","):
        low, _, high = part.partition("-")
        yield from map(str, range(int(low), int(high or low) + 1))
