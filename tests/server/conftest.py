"""A real HTTP server over a fake engine, for faults; what can be shown on the real engine is in tests/integration."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.app.build import make_services
from server.app.data_dir import make_data_dir, open_database
from server.app.http import create_app
from server.app.http_protocol import BoundedHTTP
from server.app.run import listen, run_background_work
from server.app.services import Services
from server.jobs.run.queue import TRAINING
from server.jobs.webhooks.deliverer import Deliverer
from server.settings import Settings
from server.storage.database import Database
from serving.engines.accelerator import Accelerator
from serving.registry import loader
from tests.databases import compiled_once
from tests.http_server import HTTPServer
from tests.server.fake_engine import FakeEngine, Script, streamed

TLS = ssl.create_default_context()
"""Read once: the certificates take every new client as long as its server takes to start."""


@dataclass
class Gateway:
    """A server on a free port, its engine scripted by the test."""

    http: httpx.Client
    engine: FakeEngine
    database: Database
    url: str
    services: Services
    stop: Callable[[], None]
    """Stops the server before the test ends; the database stays usable."""

    def know_keys(self) -> None:
        """Has keys that were made or revoked in the table alone count at once, not only within a second."""
        self.services.keys.invalidate()

    def error(self, response: httpx.Response) -> dict[str, Any]:
        """The error in OpenAI's envelope, all four keys there."""
        error: dict[str, Any] = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        return error


StartGateway = Callable[..., Gateway]


@contextmanager
def _starting(folder: Path, database_url: str | None, migrated_sqlite: Path) -> Iterator[StartGateway]:
    stops: list[Callable[[], None]] = []

    def start(
        script: Script = lambda body: streamed(body["model"], "hel", "lo"),
        *,
        webhooks: dict[str, Any] | None = None,
        training: Sequence[str] = TRAINING,
        accelerator: Accelerator | None = None,
        **settings: Any,
    ) -> Gateway:
        chosen = Settings(data_dir=folder / "data", **({"database_url": database_url} | settings))
        make_data_dir(chosen.data_dir)
        file = chosen.data_dir / "tuneloop.db"
        has_its_tables = not stops and chosen.database_url == database_url and not file.exists()
        if has_its_tables and database_url is None:
            shutil.copy(migrated_sqlite, file)
        database = Database(chosen.resolved_database_url) if has_its_tables else open_database(chosen)
        compiled_once(database)
        engine = FakeEngine(folder / "base", script)
        services = make_services(chosen, engine, database, training=training, accelerator=accelerator)
        if webhooks is not None:
            services = replace(services, webhooks=Deliverer(database, **webhooks))
        app = create_app(services, lifespan=lambda _app: run_background_work(services))
        listener = listen("127.0.0.1", 0)
        server = HTTPServer(app, listener, http=BoundedHTTP)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        http = httpx.Client(base_url=url, timeout=20, verify=TLS)

        def stop() -> None:
            http.close()
            server.stop()
            database.close()  # returns the connections; whoever asks again gets new ones

        stops.append(stop)
        return Gateway(http, engine, database, url, services, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "ABORT_GRACE_S", 0.0)  # no engine here goes on with what is given up
        yield start
    for stop in stops:
        stop()


@pytest.fixture
def start_gateway(tmp_path: Path, database_url: str | None, migrated_sqlite: Path) -> Iterator[StartGateway]:
    """Start a gateway whose engine follows `script` (by default: says hello as whoever was asked).

    webhooks: what the deliverer is made with, such as shorter pauses. training: the command that trains. accelerator:
    how trainings and engines share the machine.

    Started again in the same test, it finds the data directory and the database as the one before left them.
    """
    with _starting(tmp_path, database_url, migrated_sqlite) as start:
        yield start


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Gateway:
    """A gateway with the default script."""
    return start_gateway()


@pytest.fixture(scope="module")
def shared_gateway(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[Gateway]:
    """As `gateway`, on SQLite, one for all of a module's tests that are refused, or only look: change nothing there."""
    with _starting(tmp_path_factory.mktemp("shared"), None, migrated_sqlite) as start:
        yield start()
