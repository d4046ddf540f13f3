"""The real engine is killed and stopped under load, what clients see of it, and what is there again; and its server.

An engine of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.machine.leftovers import session_members
from tests.conftest import Running, Tuneloop, run_cli, running_server
from tests.integration.test_adapters import adapter_dir
from tests.processes import family, left_of, titles

pytestmark = pytest.mark.engine
STALL_TIMEOUT_S = 6
BACK_TIMEOUT_S = 400.0
"""Of a machine that is busy with other things, too."""


@dataclass(frozen=True)
class Place:
    """A server whose engine may be hurt."""

    client: httpx.Client
    base: str
    tuned: str
    data_dir: Path
    model_dir: Path
    process: Running
    """The server."""

    @property
    def engine(self) -> int:
        """Session of the engine's processes, and pid of its HTTP server."""
        return int(json.loads((self.data_dir / "engine" / "engine.json").read_text())["session"])

    @property
    def core(self) -> int:
        (core,) = [pid for pid in session_members(self.engine) if "EngineCor" in Path(f"/proc/{pid}/comm").read_text()]
        return core

    @property
    def restarts(self) -> int:
        (engine,) = self.client.get("/v1/engines").json()["data"]
        return int(engine["restarts"])

    def ask(self, model: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
        return self.client.post("/v1/chat/completions", json=body | {"temperature": 0, "max_tokens": 12})

    def answer(self, model: str) -> str:
        response = self.ask(model)
        assert response.status_code == 200, response.text
        return str(response.json()["choices"][0]["message"]["content"])

    def stream(self, model: str, began: threading.Event) -> list[dict[str, Any]]:
        """The events of one stream, too long to end before the engine is hurt; the last one has `error`."""
        body = {"model": model, "prompt": "Once", "max_tokens": 1500, "n": 8, "ignore_eos": True, "stream": True}
        events: list[dict[str, Any]] = []
        with self.client.stream("POST", "/v1/completions", json=body) as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    events.append(json.loads(line.removeprefix("data: ")))
                    if len(events) == 3:
                        began.set()
        return events

    def until_back(self, before: int) -> None:
        deadline = time.monotonic() + BACK_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.client.get("/readyz").status_code == 200 and self.engine != before:
                return
            time.sleep(0.1)
        pytest.fail(f"not back after {BACK_TIMEOUT_S:.0f} s: {(self.data_dir / 'logs' / 'server.log').read_text()}")


@pytest.fixture(scope="module")
def place(tuneloop: Tuneloop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """With a copy of the shared server's adapter."""
    data_dir = tmp_path_factory.mktemp("faults")
    source = adapter_dir(tuneloop)
    shutil.copytree(source, data_dir / "adapters" / source.name)
    flags = ("--engine-wait-s", str(BACK_TIMEOUT_S), "--engine-stall-timeout-s", str(STALL_TIMEOUT_S))
    with (
        running_server(data_dir, tuneloop.model_dir, *flags, pages=True) as (url, process, _),
        httpx.Client(base_url=url, timeout=BACK_TIMEOUT_S + 60) as client,
    ):
        yield Place(client, tuneloop.base_model, tuneloop.tuned_model, data_dir, tuneloop.model_dir, process)


def under_streams(place: Place, hurt: Callable[[], None]) -> tuple[list[list[dict[str, Any]]], list[httpx.Response]]:
    """What four streams and four requests came to whose engine was hurt while the streams ran."""
    began = [threading.Event() for _ in range(4)]
    with ThreadPoolExecutor(8) as clients:
        streams: list[Future[list[dict[str, Any]]]] = [
            clients.submit(place.stream, place.tuned if number % 2 else place.base, event)
            for number, event in enumerate(began)
        ]
        assert all(event.wait(120) for event in began)
        hurt()
        requests = [clients.submit(place.ask, place.tuned if number % 2 else place.base) for number in range(4)]
        return [stream.result() for stream in streams], [request.result() for request in requests]


def seconds_until_gone(session: int) -> float:
    """How long it takes until nothing of the session is left."""
    started = time.monotonic()
    while session_members(session):
        assert time.monotonic() - started < 30
        time.sleep(0.02)
    return time.monotonic() - started


@pytest.mark.parametrize(("victim", "limit_s"), [("core", 20), ("engine", 5)])  # vLLM itself takes 5 s to give up
def test_streams_end_with_an_error_event_and_waiting_requests_are_answered_after_the_restart(
    place: Place, victim: str, limit_s: float
) -> None:
    before, killed = {model: place.answer(model) for model in (place.base, place.tuned)}, place.engine
    restarts = place.restarts
    with ThreadPoolExecutor(1) as watching:
        gone: list[Future[float]] = []

        def kill() -> None:
            os.kill(getattr(place, victim), signal.SIGKILL)
            gone.append(watching.submit(seconds_until_gone, killed))

        streams, responses = under_streams(place, kill)
    assert gone[0].result() < limit_s
    for events in streams:
        assert "error" in events[-1], events[-3:]
        assert events[-1]["error"]["message"]
        assert not any("error" in event for event in events[:-1])
    assert [response.status_code for response in responses] == [200] * 4
    answers = [response.json()["choices"][0]["message"]["content"] for response in responses]
    assert answers == [before[place.tuned if number % 2 else place.base] for number in range(4)]
    place.until_back(killed)
    assert place.restarts == restarts + 1
    assert session_members(killed) == []
    assert place.answer(place.tuned) == before[place.tuned]


@pytest.mark.parametrize("victim", ["core", "engine"])
def test_a_stopped_process_is_noticed_and_replaced(place: Place, victim: str) -> None:
    before, stopped = place.answer(place.tuned), place.engine
    streams, responses = under_streams(place, lambda: os.kill(getattr(place, victim), signal.SIGSTOP))
    assert all("error" in events[-1] for events in streams), [events[-3:] for events in streams]
    assert [response.status_code for response in responses] == [200] * 4
    assert place.engine != stopped
    assert session_members(stopped) == []
    assert place.answer(place.tuned) == before


def test_a_long_prompt_is_no_stuck_engine(place: Place) -> None:
    engine = place.engine
    body = {"model": place.base, "prompt": [[5] * 2000] * 200, "max_tokens": 1}
    assert place.client.post("/v1/completions", json=body).status_code == 200
    assert place.engine == engine


def test_kill_and_ctrl_c_leave_no_process_and_the_next_start_works(place: Place) -> None:
    """The last one: it kills the server."""
    before = family(place.process.pid)
    assert "VLLM::EngineCore" in titles(before)
    second = run_cli("up", "--model", str(place.model_dir), "--data-dir", str(place.data_dir), "--port", "0")
    assert second.returncode == 2
    assert "in use by a running tuneloop" in second.stderr
    assert place.client.get("/readyz").status_code == 200
    sockets = Path(json.loads((place.data_dir / "engine" / "engine.json").read_text())["runtime_dir"])
    place.process.kill()
    place.process.wait()
    assert left_of(before, 5) == set()
    assert sockets.is_dir()
    with running_server(place.data_dir, place.model_dir) as (url, process, _):
        assert not sockets.exists()
        before = family(process.pid)
        assert "VLLM::EngineCore" in titles(before)
        body = {"model": place.base, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
        assert httpx.post(f"{url}/v1/chat/completions", json=body | {"temperature": 0}, timeout=60).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert left_of(before) == set()
