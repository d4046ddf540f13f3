"""Jobs in a server's database, a server that works on them in a thread or a process, and a trainer of milliseconds."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from adapter_format.hashing import file_sha256
from adapter_format.names import fine_tuned_model_name, new_adapter_id
from server.app.data_dir import open_database
from server.app.run import run_background_work
from server.app.services import Services
from server.jobs import states
from server.jobs.run_directory import RunDirectory
from server.jobs.states import add_event
from server.settings import Settings
from server.storage.database import Database
from server.storage.tables import (
    FileRow,
    JobCheckpointRow,
    JobEventRow,
    JobRow,
    WebhookDeliveryRow,
    WebhookEndpointRow,
    new_id,
    now_s,
)
from serving import BaseModel, EngineState, Pool, Registry, Replica, resolve_base_model
from tests.forked import Forked
from tests.server.fake_engine import FakeEngine
from tests.server.jobs.serve import TRAINER, services_over
from tests.serving.adapters.adapters_on_disk import write_base, write_peft_adapter

TIMEOUT_S = 120.0
EXAMPLES = "".join(
    json.dumps({"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}) + "\n"
    for n in range(12)
)


class ServerThread:
    """A server's working parts in a loop of their own."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._work(),), daemon=True)
        self._thread.start()
        assert self._started.wait(30)

    @property
    def engine(self) -> FakeEngine:
        engine = self.services.engine
        assert isinstance(engine, FakeEngine)
        return engine

    def wake_files(self) -> None:
        self._loop.call_soon_threadsafe(self.services.files.wake)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(60)
        assert not self._thread.is_alive()
        self.services.database.close()

    async def _work(self) -> None:
        async with run_background_work(self.services):
            self._started.set()
            await self._stop.wait()


@dataclass
class JobPlace:
    """A data directory with jobs, and whoever works on them."""

    data_dir: Path
    base: BaseModel
    template: Path
    database: Database
    database_url: str | None = None
    server: ServerThread | None = None
    processes: list[Forked] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.data_dir, database_url=self.database_url)

    def serve(self, *, command: Sequence[str] = TRAINER, engine: EngineState | None = None, **settings: Any) -> None:
        """Starts a server in a thread."""
        chosen = self.settings.model_copy(update={"max_running_jobs": 3, "job_stop_grace_s": 20} | settings)
        services = services_over(chosen, self.base.path, tuple(command))
        if engine and isinstance(services.engine, FakeEngine):
            services.engine.state = engine
        self.server = ServerThread(services)

    def stop(self) -> None:
        if self.server:
            self.server.stop()
            self.server = None

    def serve_in_process(self, *, command: Sequence[str] = TRAINER) -> Forked:
        """Starts a server in a process, which may be killed."""
        arguments = [str(self.data_dir), str(self.base.path), self.settings.resolved_database_url, *command]
        process = Forked("tests.server.jobs.serve", *arguments)
        self.processes.append(process)
        process.wait_for_output("ready")
        return process

    def create(
        self,
        *,
        status: str = "queued",
        config: dict[str, Any] | None = None,
        examples: str = EXAMPLES,
        integrations: list[Any] | None = None,
        **fake: Any,
    ) -> str:
        """A new job's id; where its files are to be validated, they have just been uploaded.

        fake: what the fake trainer is to do.
        """
        job = self._row(status)
        job.integrations = integrations
        if status == "validating_files":
            job.training_file = self._upload(examples)
        self._write_run(job, {"steps": 10} | fake, config or {}, examples)
        with self.database.session() as session:
            session.add(job)
            add_event(session, job.id, f"Created fine-tuning job: {job.id}")
            if status == "queued":
                add_event(session, job.id, states.VALIDATED)
        self.wake()
        return job.id

    def do(self, what: Callable[..., JobRow], job_id: str) -> JobRow:
        """Pauses, resumes or cancels the job, as the routes do."""
        with self.database.session() as session:
            job = what(session, job_id)
        self.wake()
        return job

    def wake(self) -> None:
        if self.server:
            self.server.services.runner.wake()

    def job(self, job_id: str) -> JobRow:
        with self.database.session() as session:
            return states.read(session, job_id)

    def run(self, job_id: str) -> RunDirectory:
        return RunDirectory(self.settings.runs_dir / job_id)

    def starts(self, job_id: str) -> int:
        """How many processes were started for the job."""
        path = self.run(job_id).path / "starts.txt"
        return len(path.read_text().split()) if path.exists() else 0

    def events(self, job_id: str) -> list[JobEventRow]:
        statement = select(JobEventRow).where(JobEventRow.job_id == job_id).order_by(JobEventRow.number)
        with self.database.session() as session:
            return list(session.scalars(statement))

    def messages(self, job_id: str) -> list[str]:
        return [event.message for event in self.events(job_id)]

    def steps_told(self, job_id: str) -> list[int]:
        return [event.data["step"] for event in self.events(job_id) if event.data and "train_loss" in event.data]

    def checkpoints(self, job_id: str) -> list[JobCheckpointRow]:
        statement = (
            select(JobCheckpointRow).where(JobCheckpointRow.job_id == job_id).order_by(JobCheckpointRow.step_number)
        )
        with self.database.session() as session:
            return list(session.scalars(statement))

    def told_outside(self) -> dict[str, list[str]]:
        """Job → the types of the webhook events that were written for it."""
        found: dict[str, list[str]] = {}
        with self.database.session() as session:
            for row in session.scalars(select(WebhookDeliveryRow)):
                found.setdefault(json.loads(row.payload)["data"]["id"], []).append(row.event_type)
        return found

    def served(self) -> set[str]:
        """Names of all adapters on disk."""
        engine = FakeEngine(self.data_dir / "unused", lambda body: None)  # type: ignore[arg-type, return-value]
        return {
            adapter.name
            for adapter in Registry(
                self.settings.adapters_dir, [Pool(self.base, (Replica("engine-0", engine),))]
            ).adapters()
        }

    def wait(self, job_id: str, *statuses: str) -> JobRow:
        """The job, once it has one of these statuses (by default: once it has ended)."""
        wanted = statuses or tuple(states.ENDED)
        return self.until(lambda: job if (job := self.job(job_id)).status in wanted else None, job_id)

    def until(self, condition: Callable[[], Any], job_id: str = "") -> Any:
        """What the condition gives, once that is true."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.01)
        raise AssertionError(f"It never came: {self.messages(job_id)[-5:]} {job_id and self.job(job_id).status}")

    def _row(self, status: str) -> JobRow:
        return JobRow(
            id=new_id("ftjob-"),
            status=status,
            created_at=now_s(),
            project="default",
            model=self.base.name,
            training_file="file-training",
            suffix="test",
            seed=1,
            method="supervised",
            hyperparameters={"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": 1.5},
            base_learning_rate=1e-4,
            settings={},
            wanted_model=fine_tuned_model_name(self.base.name, "org", "test"),
            adapter_id=new_adapter_id(),
            result_files=[],
            request_sha256="",
        )

    def _upload(self, examples: str) -> str:
        """The id of a file that nobody has checked yet."""
        file_id = new_id("file-")
        self.settings.files_dir.mkdir(parents=True, exist_ok=True)
        (self.settings.files_dir / file_id).write_text(examples)
        row = FileRow(
            id=file_id, filename="a.jsonl", purpose="fine-tune", bytes=len(examples), sha256="", status="uploaded",
            created_at=now_s(),
        )  # fmt: skip
        with self.database.session() as session:
            session.add(row)
        if self.server:
            self.server.wake_files()
        return file_id

    def _write_run(self, job: JobRow, fake: dict[str, Any], changes: dict[str, Any], examples: str) -> None:
        run = self.run(job.id)
        run.path.mkdir(parents=True)
        run.training_file.write_text(examples)
        config = {
            "base_model": str(self.base.path),
            "training_file": str(run.training_file),
            "output_dir": str(self.settings.adapters_dir / job.adapter_id),
            "fine_tuned_model": job.wanted_model,
        }
        (run.path / "config.json").write_text(json.dumps(config | changes))
        manifest = {
            "manifest_version": 1,
            "id": job.adapter_id,
            "created_at": now_s(),
            "base_model": self.base.name,
            "base_model_sha256": self.base.sha256,
            "files": {
                file.name: {"sha256": file_sha256(file), "bytes": file.stat().st_size}
                for file in self.template.iterdir()
            },
        }
        content = {"template": str(self.template), "manifest": manifest, **fake}
        (run.path / "fake.json").write_text(json.dumps(content))


@pytest.fixture
def place(tmp_path: Path, database_url: str | None) -> Iterator[JobPlace]:
    """A place over a base model of a few kB."""
    base = write_base(tmp_path / "tiny-base")
    yield from _place(tmp_path, base, database_url)


@pytest.fixture
def real_place(tmp_path: Path, demo_model: Path) -> Iterator[JobPlace]:
    """A place over the embedded base model, for real trainings."""
    yield from _place(tmp_path, resolve_base_model(str(demo_model)))


def _place(tmp_path: Path, base: BaseModel, database_url: str | None = None) -> Iterator[JobPlace]:
    tiny = base if base.path.name == "tiny-base" else write_base(tmp_path / "tiny-base")
    template = write_peft_adapter(tmp_path / "template", tiny)
    database = open_database(Settings(data_dir=tmp_path / "data", database_url=database_url))
    place = JobPlace(tmp_path / "data", base, template, database, database_url)
    with place.database.session() as session:
        session.add(
            WebhookEndpointRow(
                id="we_test",
                name="test",
                url="http://127.0.0.1:9/never-there",
                event_types=[f"fine_tuning.job.{status}" for status in states.ENDED],
                secret="whsec_" + "A" * 32,
                created_at=now_s(),
                updated_at=now_s(),
            )
        )
    yield place
    place.stop()
    for process in place.processes:
        process.kill()
        process.wait()
    place.database.close()
    shutil.rmtree(place.data_dir / "runs", ignore_errors=True)
