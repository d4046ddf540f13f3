"""One training as a process: started under serving's keeper, so that nothing of it outlives the server.

Knows the run directory's lock and the environment; refuses to know what the events mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.jobs.run_directory import RunDirectory
from server.storage.tables import JobRow
from serving.machine.division import Division
from serving.machine.kept_process import KeptProcess

_LOCK_POLL_S = 0.05
_LOCK_SLACK_S = 10.0
"""Beyond the grace: the old process's keeper has to notice that its server is gone."""


async def start_training(
    command: Sequence[str],
    executable: str,
    run: RunDirectory,
    job: JobRow,
    grace_s: float,
    division: Division | None = None,
) -> KeptProcess:
    """The job's process, running.

    executable: what it runs in the end; `command` may begin with something that only leads there.
    division: which devices it may use; by default all.

    Raises:
        EngineStartError: not even its keeper could be started.
    """
    division = division or Division()
    environment = {**os.environ, **_tracking(job), **division.training_environment}
    whole = [*command, str(run.path)]
    cores = division.training_cores
    return await KeptProcess.start(whole, environment, run.log, grace_s, executable=executable, cores=cores)


async def wait_until_free(run: RunDirectory, grace_s: float) -> None:
    """Returns when no process works on the run directory.

    An earlier server's process may still be writing its checkpoint. One that needs longer than its grace is killed.
    """
    deadline = asyncio.get_running_loop().time() + grace_s + _LOCK_SLACK_S
    while not is_free(run.lock):
        if asyncio.get_running_loop().time() > deadline:
            _kill_holder(run)
        await asyncio.sleep(_LOCK_POLL_S)


def is_free(lock: Path) -> bool:
    """Whether no process works on the run directory with this lock."""
    try:
        with lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def _kill_holder(run: RunDirectory) -> None:
    """Kills the process that the lock names, if it is a training on this very directory."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(run.lock.read_text(encoding="ascii"))
        if os.fsencode(run.path) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            os.kill(pid, signal.SIGKILL)


def _tracking(job: JobRow) -> Mapping[str, str]:
    """What Weights & Biases reads from the environment, for the first integration with it."""
    for integration in job.integrations or ():
        wandb: dict[str, Any] = integration.get("wandb") or {}
        found = {
            "WANDB_NAME": wandb.get("name") or job.id,
            "WANDB_ENTITY": wandb.get("entity"),
            "WANDB_TAGS": ",".join(wandb.get("tags") or ()),
        }
        return {name: value for name, value in found.items() if value}
    return {}
