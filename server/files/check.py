"""Has files of examples looked through, each in a process of its own: `check_process`. Knows no HTTP, no database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.files.check_process import FileFaults, JobCheck
from server.wire.child_process import run_child
from training.config.config import FileFormat, Method, OnLeakage

ATTEMPTS = 3
"""Times that a check is tried whose process dies."""
START_S = 120.0
SLOWEST_BYTES_PER_S = 1e6
"""How long a check may take: it has this long to start, and goes through files at this pace at least. With two cores
to itself it does 60 MB/s, but it gives way to all else."""
COMMAND = (sys.executable, "-m", "server.files.check_process")


class FileCheckError(Exception):
    """The process died each time it was tried, or came to no end. The message says how."""


async def check_for_job(
    training: Path,
    validation: Path | None,
    method: Method,
    *,
    file_format: FileFormat = "auto",
    on_leakage: OnLeakage = "refuse",
    command: Sequence[str] = COMMAND,
) -> JobCheck:
    """Whether a job can learn by `method` from `training`, and be measured on `validation`; found in a process.

    Cancelling the task that waits here ends the process.

    Raises:
        FileCheckError: the process died `ATTEMPTS` times, or took far too long.
        FileNotFoundError: a file isn't there.
    """
    question = {
        "training": str(training),
        "validation": None if validation is None else str(validation),
        "method": method,
        "file_format": file_format,
        "on_leakage": on_leakage,
    }
    # Three times: it may go through the training file once more, to compare the two.
    time_out_s = 3 * _time_out_s(*(path for path in (training, validation) if path is not None))
    return JobCheck(**await _ask({"job": question}, command, time_out_s))


async def check_file(path: Path, *, command: Sequence[str] = COMMAND) -> FileFaults:
    """Whether some method can learn from each record of the file; found in a process.

    Raises:
        FileCheckError: the process died `ATTEMPTS` times, or took far too long.
        FileNotFoundError: the file isn't there.
    """
    answer = await _ask({"file": str(path)}, command, _time_out_s(path))
    return FileFaults(answer["examples"], tuple(answer["faults"]), answer["found"])


def _time_out_s(*paths: Path) -> float:
    return START_S + sum(path.stat().st_size for path in paths) / SLOWEST_BYTES_PER_S


async def _ask(question: dict[str, Any], command: Sequence[str], time_out_s: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(time_out_s):
            return await _answer(question, command)
    except TimeoutError as error:
        raise FileCheckError(
            f"The process that checks files had not ended after {time_out_s:.0f} s. See that the machine has time for "
            "it, or give a smaller file."
        ) from error


async def _answer(question: dict[str, Any], command: Sequence[str]) -> dict[str, Any]:
    ends: list[str] = []
    for _ in range(ATTEMPTS):
        child = await run_child([*command, json.dumps(question)])
        with contextlib.suppress(ValueError):
            if child.code == 0:
                answer: dict[str, Any] = json.loads(child.stdout)
                return answer
        ends.append(f"signal {-child.code}" if child.code < 0 else f"exit code {child.code}")
    raise FileCheckError(
        f"The process that checks files died {ATTEMPTS} times ({', '.join(ends)}). Memory may have run out: "
        "free some, or give a smaller file."
    )
