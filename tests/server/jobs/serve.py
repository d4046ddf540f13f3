"""A server's working parts over a fake engine, in a process that a test may kill.

Arguments: DATA_DIR BASE DATABASE_URL COMMAND…
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import closing
from pathlib import Path

from server.app.build import make_services
from server.app.data_dir import open_database
from server.app.run import run_background_work
from server.app.services import Services
from server.settings import Settings
from serving import EngineLimits, resolve_base_model
from tests.databases import compiled_once
from tests.server.fake_engine import FakeAnswer, FakeEngine

TRAINER = (sys.executable, "-m", "tests.server.jobs.fake_trainer")


def services_over(settings: Settings, base_dir: Path, command: tuple[str, ...]) -> Services:
    """The parts; what trains is `command`."""
    engine = FakeEngine(base_dir.with_name("engine"), lambda body: FakeAnswer(b"{}"))
    engine.base = resolve_base_model(str(base_dir))
    engine.limits = EngineLimits(32, 4, 8, 512)
    return make_services(settings, engine, compiled_once(open_database(settings)), training=command)


async def main(data_dir: Path, base_dir: Path, database_url: str, command: tuple[str, ...]) -> None:
    settings = Settings(data_dir=data_dir, database_url=database_url, max_running_jobs=3, job_stop_grace_s=20)
    services = services_over(settings, base_dir, command)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with closing(services.database):
        async with run_background_work(services):
            print("ready", flush=True)
            await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], tuple(sys.argv[4:])))
