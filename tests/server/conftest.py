"""A real HTTP server over a fake engine, for faults; what can be shown on the real engine is in tests/integration."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from server.app import create_app
from server.auth import KeyStore
from server.composition import listen, open_database
from server.database import Database
from server.metrics import Metrics
from server.services import Services
from server.settings import Settings
from serving import Registry
from tests.server.fake_engine import FakeEngine, Script, streamed


@dataclass
class Gateway:
    """A server on a free port, its engine scripted by the test."""

    http: httpx.Client
    engine: FakeEngine
    database: Database
    url: str

    def error(self, response: httpx.Response) -> dict[str, Any]:
        """The error in OpenAI's envelope, all four keys there."""
        error: dict[str, Any] = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        return error


StartGateway = Callable[..., Gateway]


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Start a gateway whose engine follows `script` (by default: says hello as whoever was asked)."""
    stops: list[Callable[[], None]] = []

    def start(script: Script = lambda body: streamed(body["model"], "hel", "lo"), **settings: Any) -> Gateway:
        chosen = Settings(data_dir=tmp_path / "data", **settings)
        database = open_database(chosen)
        engine = FakeEngine(tmp_path / "base", script)
        registry = Registry(chosen.adapters_dir, engine.base, engine)
        services = Services(chosen, engine, registry, database, KeyStore(database), Metrics())
        listener = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(create_app(services), log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        http = httpx.Client(base_url=url, timeout=20)

        def stop() -> None:
            http.close()
            server.should_exit = True
            thread.join(10)
            database.close()

        stops.append(stop)
        return Gateway(http, engine, database, url)

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Gateway:
    """A gateway with the default script."""
    return start_gateway()
