"""Checks files of examples in child processes, by the rules of `training.data.check`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.wire.child_process import run_child
from training.config.config import FileFormat, Method, OnLeakage
from training.data.check import FileFaults, JobCheck

ATTEMPTS = 3
"""How often a check is tried if its process dies."""
START_S = 120.0
SLOWEST_BYTES_PER_S = 1e6
"""How long a check may take: this long to start, plus the time to read the files at this pace. With two cores to itself
it reads 60 MB/s, but it runs at a low priority."""
COMMAND = (sys.executable, "-m", "training.inspection.answer")
"""The program that answers questions about files; inspections ask it, too."""


class FileCheckError(Exception):
    """The process died at each attempt, or timed out. The message says which."""


async def check_for_job(
    training: Path,
    validation: Path | None,
    method: Method,
    *,
    file_format: FileFormat = "auto",
    on_leakage: OnLeakage = "refuse",
    command: Sequence[str] = COMMAND,
) -> JobCheck:
    """Check in a child process whether a job can train by `method` on `training` and be evaluated on `validation`.

    Cancelling the caller kills the process.

    Raises:
        FileCheckError: the process died `ATTEMPTS` times, or timed out.
        FileNotFoundError: a file isn't there.
    """
    question = {
        "ask": "job",
        "training": str(training),
        "validation": None if validation is None else str(validation),
        "method": method,
        "file_format": file_format,
        "on_leakage": on_leakage,
    }
    # Three times: the training file may be read once more, to compare the two.
    time_out_s = 3 * _compute_timeout_s(*(path for path in (training, validation) if path is not None))
    return JobCheck(**await _run_with_timeout(question, command, time_out_s))


async def check_file(path: Path, *, command: Sequence[str] = COMMAND) -> FileFaults:
    """Check in a child process whether each record of the file can be trained on by some method.

    Raises:
        FileCheckError: the process died `ATTEMPTS` times, or timed out.
        FileNotFoundError: the file isn't there.
    """
    answer = await _run_with_timeout({"ask": "file", "file": str(path)}, command, _compute_timeout_s(path))
    return FileFaults(answer["examples"], tuple(answer["faults"]), answer["found"])


def _compute_timeout_s(*paths: Path) -> float:
    return START_S + sum(path.stat().st_size for path in paths) / SLOWEST_BYTES_PER_S


async def _run_with_timeout(question: dict[str, Any], command: Sequence[str], timeout_s: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(timeout_s):
            return await _run_process(question, command)
    except TimeoutError as error:
        raise FileCheckError(
            f"The file check took more than {timeout_s:.0f} s. Try again when the machine is less busy, or use a "
            "smaller file."
        ) from error


async def _run_process(question: dict[str, Any], command: Sequence[str]) -> dict[str, Any]:
    failures: list[str] = []
    for _ in range(ATTEMPTS):
        child = await run_child(command, json.dumps(question).encode() + b"\n")
        with contextlib.suppress(ValueError, KeyError):
            if child.code == 0:
                answer: dict[str, Any] = json.loads(child.stdout)["answer"]
                return answer
        failures.append(f"signal {-child.code}" if child.code < 0 else f"exit code {child.code}")
    raise FileCheckError(
        f"The file check crashed {ATTEMPTS} times ({', '.join(failures)}). The machine may be out of memory: free "
        "some, or use a smaller file."
    )
