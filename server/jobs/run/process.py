"""The process of one training, started under serving's keeper so that it can't outlive the server.

Also the lock of the run directory, and the process's environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapter_format.disk import is_locked
from server.jobs.run_directory import RunDirectory
from server.storage.tables import JobRow
from serving.machine.division import Division
from serving.machine.kept_process import KeptProcess

_LOCK_POLL_S = 0.05
_LOCK_SLACK_S = 10.0
"""In addition to the grace period: the old process's keeper has to notice that its server is gone."""


async def start_training(
    command: Sequence[str],
    executable: str,
    run: RunDirectory,
    job: JobRow,
    grace_s: float,
    division: Division | None = None,
) -> KeptProcess:
    """Start the job's process.

    executable: the program that is finally run; `command` may begin with a wrapper such as `nice`.
    division: which devices it may use; default: all.

    Raises:
        EngineStartError: its keeper could not be started.
    """
    division = division or Division()
    environment = {**os.environ, **_build_tracking_environment(job), **division.training_environment}
    full_command = [*command, str(run.path)]
    cores = division.training_cores
    return await KeptProcess.start(full_command, environment, run.log, grace_s, executable=executable, cores=cores)


async def wait_until_free(run: RunDirectory, grace_s: float) -> None:
    """Wait until no process uses the run directory.

    An earlier server's process may still be writing its checkpoint. It is killed after its grace period.
    """
    deadline = asyncio.get_running_loop().time() + grace_s + _LOCK_SLACK_S
    while is_locked(run.lock):
        if asyncio.get_running_loop().time() > deadline:
            _kill_holder(run)
        await asyncio.sleep(_LOCK_POLL_S)


def _kill_holder(run: RunDirectory) -> None:
    """Kill the process that the lock names, if it is a training on this directory."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(run.lock.read_text(encoding="ascii"))
        if os.fsencode(run.path) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            os.kill(pid, signal.SIGKILL)


def _build_tracking_environment(job: JobRow) -> Mapping[str, str]:
    """Return the environment variables of Weights & Biases for the job's first integration with it."""
    for integration in job.integrations or ():
        wandb: dict[str, Any] = integration.get("wandb") or {}
        found = {
            "WANDB_NAME": wandb.get("name") or job.id,
            "WANDB_ENTITY": wandb.get("entity"),
            "WANDB_TAGS": ",".join(wandb.get("tags") or ()),
        }
        return {name: value for name, value in found.items() if value}
    return {}
