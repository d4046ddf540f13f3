"""What whoever works on jobs is given: the running parts of the server, and how a training is started."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from server.database import Database
from server.files import FileStore
from server.jobs.run_directory import RunDirectory
from server.settings import Settings
from serving import Engine, Registry, inspect_device

NICE = 5
"""How much a training on a CPU stands back behind the engine, which someone is waiting for: it gets a third of the
engine's share of a core. At 10 it gets a tenth, and a busy chat was seen to starve a job for minutes."""


@dataclass(frozen=True)
class Workshop:
    """The parts, and the command."""

    settings: Settings
    database: Database
    engine: Engine
    registry: Registry
    files: FileStore
    command: tuple[str, ...]
    """What is started with the run directory as its last argument."""

    def run_of(self, job_id: str) -> RunDirectory:
        """The run directory of this job."""
        return RunDirectory(self.settings.runs_dir / job_id)

    def command_here(self) -> tuple[str, ...]:
        """The command as this machine is to run it: on a CPU with a lower priority. May take a second."""
        if inspect_device().kind == "cpu" and shutil.which("nice"):
            return ("nice", "-n", str(NICE), *self.command)
        return self.command
