"""The real gateway over a scripted engine behind the pages, and a family of models: for pages about what is there.

Knows nothing of any page.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from server.app.build import make_services
from server.app.data_dir import open_database
from server.app.http import create_app
from server.app.http_protocol import BoundedHTTP
from server.app.run import listen, run_background_work
from server.settings import load_settings
from server.storage.tables import JobRow, now_s
from tests.conftest import free_port
from tests.http_server import HTTPServer
from tests.server.conftest import Gateway
from tests.server.fake_engine import FakeEngine, Script, streamed
from tests.server.jobs.test_fine_tuning_api import add_file, create
from tests.serving.adapters.adapters_on_disk import write_adapter, write_base, write_peft_adapter
from tests.serving.adapters.archives import files_of, tar_gz
from tests.serving.adapters.bad_adapters import with_tokenizer
from tests.ui.running import running
from ui.apart import create_apart_app
from ui.pages.models import page

CAPTAIN, BRAVER, POET = (
    f"ft:base:personal:{name}:{name[0] * 8}" for name in ("captain", "braver-captain", "poet")
)  # fmt: skip
METRICS = {
    "train_loss": 0.41, "trained_tokens": 85984, "examples": 315, "steps": 160, "seconds": 40.86,
    "valid_loss_before": 3.83, "valid_loss": 0.62, "valid_perplexity_before": 46.1, "valid_perplexity": 1.86,
}  # fmt: skip
PARITY = {
    "passed": True, "reasons": [], "tuned": {"mean": 0.024, "max": 0.13}, "share": 0.999, "bound": 0.15,
    "engine_dtype": "bfloat16", "reference_dtype": "float32",
}  # fmt: skip
CONFIG = {"method": "supervised", "n_epochs": 8, "batch_size": 16, "learning_rate": 0.0015, "r": 8, "lora_alpha": 32}


@dataclass(frozen=True)
class Pages:
    """The pages on an address of their own, and the port where they look for one gateway after another."""

    url: str
    api_port: int


@contextmanager
def lone_pages() -> Iterator[Pages]:
    """The pages apart from any gateway. They take seconds to make, a gateway none. They look for changes often."""
    api_port = free_port()
    api = f"http://127.0.0.1:{api_port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "POLL_INTERVAL_S", 1.0)
        app = create_apart_app(api, allowed_hosts=["127.0.0.1"])
    with running(lambda _url: app) as url:
        yield Pages(url, api_port)


@contextmanager
def paged_gateway(
    folder: Path, pages: Pages, *, script: Script = lambda body: streamed(body["model"], "aye"), **settings: object
) -> Iterator[Gateway]:
    """A gateway in `folder` behind the pages, whose URL it has. Started again there, it finds what was left."""
    chosen = load_settings({"data_dir": folder / "data", **settings}, environ={}).settings
    database = open_database(chosen)
    if not (folder / "base").exists():
        with_tokenizer(write_base(folder / "base"))
    engine = FakeEngine(folder / "base", script)
    services = make_services(chosen, engine, database)
    app = create_app(services, lifespan=lambda _app: run_background_work(services))
    server = HTTPServer(app, listen("127.0.0.1", pages.api_port), http=BoundedHTTP)
    with httpx.Client(base_url=f"http://127.0.0.1:{pages.api_port}", timeout=20) as http:
        try:
            yield Gateway(http, engine, database, pages.url, services, server.stop)
        finally:
            server.stop()
            database.close()


def make(gateway: Gateway, name: str, model: str = "base", **manifest: object) -> JobRow:
    """The job on `model` that has made `name`; its adapter is there and says `manifest`."""
    gateway.services.runner.wake = lambda: None  # type: ignore[method-assign]
    job_id = create(gateway, model=model, training_file=add_file(gateway)).json()["id"]
    with gateway.database.session() as session:
        job = session.query(JobRow).filter_by(id=job_id).one()
        job.wanted_model, job.fine_tuned_model, job.status = name, name, "succeeded"
        job.finished_at = now_s()
    told = {"name": name, "created_at": now_s(), "metrics": METRICS, "parity": PARITY, "config": CONFIG}
    write_adapter(gateway.services.settings.adapters_dir, gateway.services.engine.base, manifest=told | manifest)
    return job


def sound_archive(folder: Path, gateway: Gateway) -> Path:
    """A .tar.gz of an adapter that the gateway's base takes."""
    path = folder / "sound.tar.gz"
    path.write_bytes(
        tar_gz(files_of(write_peft_adapter(folder / "peft", gateway.services.engine.base)), within="my-adapter/")
    )
    return path
