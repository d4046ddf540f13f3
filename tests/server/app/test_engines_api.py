"""`/v1/engines`, and models of engines that others run: here another tuneloop, which is an OpenAI endpoint like any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.access.keys import create_key
from server.app.build import make_services
from server.app.data_dir import open_database
from server.app.engines import make_remotes
from server.app.http import create_app
from server.app.http_protocol import BoundedHTTP
from server.app.run import listen, run_background_work
from server.app.services import Services
from server.settings import Settings
from serving import EngineLimits, EngineStartError, EngineState
from tests.conftest import run_cli
from tests.http_server import HTTPServer
from tests.server.fake_engine import FakeEngine, streamed


class RestartableEngine(FakeEngine):
    """A fake that can be restarted, or not."""

    fault: str | None = None

    async def restart(self, limits: EngineLimits | None = None) -> None:
        await asyncio.sleep(0.05)
        if self.fault:
            raise EngineStartError(self.fault)
        assert limits
        self.limits, self.generation = limits, self.generation + 1


@dataclass
class Served:
    """A server on a port, with its parts."""

    http: httpx.Client
    engine: RestartableEngine
    services: Services
    url: str
    port: int


@contextmanager
def serving(folder: Path, base: str, port: int = 0, **settings: Any) -> Iterator[Served]:
    """A server whose one base is called `base`."""
    folder.mkdir(exist_ok=True)
    chosen = Settings(data_dir=folder / "data", **settings)
    database = open_database(chosen)
    engine = RestartableEngine(folder / base, lambda body: streamed(body["model"], "hello ", f"from {base}"))
    services = make_services(chosen, engine, database, remotes=make_remotes(chosen))
    app = create_app(services, lifespan=lambda _app: run_background_work(services))
    listener = listen("127.0.0.1", port)
    server = HTTPServer(app, listener, http=BoundedHTTP)
    port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=20) as http:
            yield Served(http, engine, services, url, port)
    finally:
        server.stop()
        database.close()


def new_key(folder: Path, *, is_admin: bool) -> str:
    """A new key of the server in this folder."""
    database = open_database(Settings(data_dir=folder / "data"))
    with database.session() as session:
        _, secret = create_key(session, "test", is_admin=is_admin)
        session.commit()
    database.close()
    return secret


def ask(server: Served, model: str, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    return server.http.post("/v1/chat/completions", json=body, **more)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_another_tuneloops_model_answers_here_and_its_absence_is_told(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    key = new_key(tmp_path / "lab", is_admin=False)
    with ExitStack() as stack:
        with serving(tmp_path / "lab", "lab-base") as lab:
            assert lab.http.get("/v1/models").status_code == 401
            remote = {"remote_engines": {"lab": lab.url}, "remote_engine_keys": {"lab": key}}
            front = stack.enter_context(serving(tmp_path / "front", "front-base", **remote))
            answer = ask(front, "lab-base")
            assert (answer.status_code, "from lab-base" in answer.text) == (200, True)
            assert answer.text.rstrip().endswith("data: [DONE]")
            assert "from front-base" in ask(front, "front-base").text
            listed = {model["id"]: model["owned_by"] for model in front.http.get("/v1/models").json()["data"]}
            assert listed == {"front-base": "base", "lab-base": "remote"}
            assert front.http.get("/v1/models/lab-base").json()["owned_by"] == "remote"
            (lineage,) = front.http.get("/v1/models/lab-base/lineage").json()["chain"]
            assert (lineage["kind"], lineage["state"], lineage["parent"]) == ("remote", "served", None)
            assert front.http.delete("/v1/models/lab-base").json()["error"]["code"] == "remote_model"
            shown = front.http.get("/v1/engines")
            assert key not in shown.text
            assert [one["id"] for one in shown.json()["data"]] == ["engine-0", "lab"]
            assert shown.json()["data"][1]["url"] == f"{lab.url}/v1"
        answer = ask(front, "lab-base")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert key not in answer.text
        assert front.http.get("/readyz").status_code == 200  # what we run is up
        with serving(tmp_path / "lab", "lab-base", lab.port):
            until(lambda: ask(front, "lab-base").status_code == 200)


def test_a_wrong_key_for_a_remote_engine_is_nobodys_fault_here_and_isnt_told(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    new_key(tmp_path / "lab", is_admin=False)
    with (
        serving(tmp_path / "lab", "lab-base") as lab,
        serving(
            tmp_path / "front",
            "front-base",
            remote_engines={"lab": lab.url},
            remote_engine_keys={"lab": "sk-wrong"},
        ) as front,
    ):
        assert ask(front, "lab-base").json()["error"]["code"] == "model_not_found"
        (_, shown) = front.http.get("/v1/engines").json()["data"]
        assert shown["state"] == "dead"
        assert "remote_engine_keys" in shown["last_trouble"]
        assert "sk-wrong" not in shown["last_trouble"]


def test_only_an_admin_sees_and_restarts_engines(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    admin, plain = new_key(tmp_path / "one", is_admin=True), new_key(tmp_path / "one", is_admin=False)
    with serving(tmp_path / "one", "base") as one:
        for method, path in (("GET", ""), ("POST", "/restart"), ("POST", "/engine-0/restart")):
            answer = one.http.request(method, f"/v1/engines{path}", headers={"Authorization": f"Bearer {plain}"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_key_required")
            answer = one.http.request(method, f"/v1/engines{path}", headers={"Authorization": f"Bearer {admin}"})
            assert answer.status_code == 200
        assert one.engine.generation == 3


def test_a_restart_answers_with_the_new_limits_or_at_once(tmp_path: Path) -> None:
    with serving(tmp_path / "one", "base", max_lora_rank=64, max_adapters=2) as one:
        (engine,) = one.http.get("/v1/engines").json()["data"]
        assert engine["object"] == "engine"
        assert (engine["limits"]["max_lora_rank"], engine["wanted_limits"]["max_lora_rank"]) == (16, 64)
        answer = one.http.post("/v1/engines/restart")
        assert (answer.status_code, answer.json()["data"][0]["limits"]["max_lora_rank"]) == (200, 64)
        answer = one.http.post("/v1/engines/engine-0/restart", json={"wait": False})
        assert answer.status_code == 202
        until(lambda: one.engine.generation == 3)


def test_a_restart_that_cannot_be_is_refused(tmp_path: Path) -> None:
    refusals: tuple[tuple[str, dict[str, Any], int, str], ...] = (
        ("engine-9/restart", {}, 404, "engine_not_found"),
        ("lab/restart", {}, 409, "engine_restart_refused"),
        ("restart", {"drain_timeout_s": -1}, 400, "integer_below_min_value"),
        ("restart", {"now": True}, 400, "unknown_parameter"),
    )
    with serving(tmp_path / "one", "base", remote_engines={"lab": "http://127.0.0.1:9"}) as one:
        for path, body, status, code in refusals:
            answer = one.http.post(f"/v1/engines/{path}", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert one.engine.generation == 1, path


def test_an_engine_that_does_not_come_up_with_new_limits_is_told(tmp_path: Path) -> None:
    with serving(tmp_path / "one", "base") as one:
        one.engine.fault = "No memory for the engine."
        answer = one.http.post("/v1/engines/restart")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_restart_failed")
        assert "No memory" in answer.json()["error"]["message"]
        assert ask(one, "base").status_code == 200


def test_readyz_names_the_base_that_no_engine_answers_for(tmp_path: Path) -> None:
    with serving(tmp_path / "one", "base") as one:
        assert one.http.get("/readyz").json() == {"status": "ready"}
        one.engine.state = EngineState.DEAD
        answer = one.http.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "dead", "bases_down": {"base": "dead"}})


def test_the_command_line_shows_the_engines_and_restarts_them(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    admin = new_key(tmp_path / "one", is_admin=True)
    with serving(tmp_path / "one", "base", max_lora_rank=64) as one:
        refused = run_cli("engines", "list", "--server", one.url)
        assert (refused.returncode, "TUNELOOP_API_KEY" in refused.stderr) == (2, True)
        listed = run_cli("engines", "list", "--port", str(one.port), TUNELOOP_API_KEY=admin)
        assert listed.returncode == 0, listed.stderr
        assert "engine-0" in listed.stdout
        assert "16 / 4 / 8" in listed.stdout
        assert "engine-0 will change to 64 / 4 / 32 with" in listed.stdout
        done = run_cli("engines", "restart", "engine-0", "--server", one.url, TUNELOOP_API_KEY=admin)
        assert done.returncode == 0, done.stderr
        assert "64 / 4 / 32" in done.stdout


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"remote_engines": {"engine-1": "http://lab"}}, "a local engine's id"),
        ({"remote_engines": {"Lab!": "http://lab"}}, "lower-case"),
        ({"remote_engines": {"lab": "lab"}}, "base_url"),
        ({"remote_engine_keys": {"lab": "sk-secret"}}, "isn't in remote_engines"),
    ],
)
def test_remote_engines_that_cannot_be_meant_are_refused_at_start(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineStartError, match=words) as caught:
        make_remotes(Settings(**settings))
    assert "sk-secret" not in str(caught.value)


def test_keys_of_remote_engines_are_shown_nowhere() -> None:
    environment = {"TUNELOOP_REMOTE_ENGINES": "lab=https://lab.example/v1", "TUNELOOP_REMOTE_ENGINE_KEYS": "lab=hush"}
    done = run_cli("settings", **environment)
    assert done.returncode == 0, done.stderr
    assert "lab=***" in done.stdout
    assert "hush" not in done.stdout
    wrong = run_cli("settings", TUNELOOP_REMOTE_ENGINE_KEYS="hush")
    assert wrong.returncode == 2
    assert "hush" not in wrong.stderr
    assert "--remote-engine-keys" not in run_cli("up", "--help").stdout
