"""The whole gateway over a scripted engine, in a process that may be killed: `python -m` it with PORT DATA_DIR [URL].

Serves `base` and one tuned model, which answer in their own ways. URL is the database's; SQLite in DATA_DIR by default.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import uvicorn

from server.app.build import make_services
from server.app.data_dir import open_database
from server.app.http import create_app
from server.app.run import listen, run_background_work
from server.settings import Settings
from serving import resolve_base_model
from tests.server.fake_engine import FakeAnswer, FakeEngine, streamed
from tests.serving.adapters.adapters_on_disk import write_adapter, write_base

TUNED = "ft:base:personal:short:aaaaaaaa"


def answer(body: dict[str, Any]) -> FakeAnswer:
    """The base is wordy, the tuned model is not."""
    asked = str(body["messages"][-1]["content"])
    words = [asked, "yes"] if body["model"] == TUNED else [asked, *["well"] * 9, "yes"]
    return streamed(body["model"], *(f"{word} " for word in words))


def main(port: int, data_dir: Path, database_url: str | None) -> None:
    """Serves until it is killed. A data directory that is there already is gone on with."""
    base_dir = data_dir.with_name(f"{data_dir.name}-base") / "base"
    is_new = not base_dir.exists()
    base = write_base(base_dir) if is_new else resolve_base_model(str(base_dir))
    settings = Settings(data_dir=data_dir, database_url=database_url)
    database = open_database(settings)
    engine = FakeEngine(base_dir, answer)
    engine.base = base
    services = make_services(settings, engine, database)
    if is_new:
        write_adapter(settings.adapters_dir, base, manifest={"name": TUNED})
    app = create_app(services, lifespan=lambda _app: run_background_work(services))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    server.run(sockets=[listen("127.0.0.1", port)])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
