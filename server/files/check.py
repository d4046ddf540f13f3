"""Checks files of examples in a child process: both the parent's side and the child's.

`python -m server.files.check QUESTION` answers one question with one line of JSON. It runs at a low priority, and ends
when its parent does, in whatever way that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.wire.child_process import run_child
from training.config.config import FileFormat, Method, OnLeakage
from training.data.examples import Example
from training.data.formats.read import FAULTS_SHOWN, DataError, Fault, iter_examples, method_fault
from training.data.splits import refuse_leakage

MIN_EXAMPLES = 10
"""Fewest examples in a training file, as OpenAI has it:
https://platform.openai.com/docs/guides/supervised-fine-tuning"""
ATTEMPTS = 3
"""How often a check is tried if its process dies."""
START_S = 120.0
SLOWEST_BYTES_PER_S = 1e6
"""How long a check may take: this long to start, plus the time to read the files at this pace. With two cores to itself
it reads 60 MB/s, but it runs at a low priority."""
COMMAND = (sys.executable, "-m", "server.files.check")
NICE = 10


class FileCheckError(Exception):
    """The process died at each attempt, or timed out. The message says which."""


@dataclass(frozen=True)
class FileFaults:
    """What a check found in one file."""

    examples: int
    faults: tuple[str, ...]
    """The first `FAULTS_SHOWN` faults, each with its line: `line 3: …`."""
    found: int
    """Total number of faults; 0 for a usable file."""

    def describe(self) -> str:
        """Return the faults as readable sentences, ending in "and N more" if some are left out."""
        more = self.found - len(self.faults)
        return "; ".join(self.faults) + (f"; and {more} more" if more else "")


@dataclass(frozen=True)
class JobCheck:
    """What a check found in the files of a job."""

    code: str | None = None
    """`invalid_training_file`, `invalid_validation_file` or `invalid_n_examples`; None if the job may run."""
    message: str | None = None
    """A readable message with the faults by line. It contains no path of this machine."""
    param: str | None = None
    """`training_file` or `validation_file`."""


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
        "training": str(training),
        "validation": None if validation is None else str(validation),
        "method": method,
        "file_format": file_format,
        "on_leakage": on_leakage,
    }
    # Three times: the training file may be read once more, to compare the two.
    time_out_s = 3 * _compute_timeout_s(*(path for path in (training, validation) if path is not None))
    return JobCheck(**await _run_with_timeout({"job": question}, command, time_out_s))


async def check_file(path: Path, *, command: Sequence[str] = COMMAND) -> FileFaults:
    """Check in a child process whether each record of the file can be trained on by some method.

    Raises:
        FileCheckError: the process died `ATTEMPTS` times, or timed out.
        FileNotFoundError: the file isn't there.
    """
    answer = await _run_with_timeout({"file": str(path)}, command, _compute_timeout_s(path))
    return FileFaults(answer["examples"], tuple(answer["faults"]), answer["found"])


def _compute_timeout_s(*paths: Path) -> float:
    return START_S + sum(path.stat().st_size for path in paths) / SLOWEST_BYTES_PER_S


async def _run_with_timeout(question: dict[str, Any], command: Sequence[str], timeout_s: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(timeout_s):
            return await _run_process(question, command)
    except TimeoutError as error:
        raise FileCheckError(
            f"The process that checks files had not ended after {timeout_s:.0f} s. See that the machine has time for "
            "it, or give a smaller file."
        ) from error


async def _run_process(question: dict[str, Any], command: Sequence[str]) -> dict[str, Any]:
    failures: list[str] = []
    for _ in range(ATTEMPTS):
        child = await run_child([*command, json.dumps(question)])
        with contextlib.suppress(ValueError):
            if child.code == 0:
                answer: dict[str, Any] = json.loads(child.stdout)
                return answer
        failures.append(f"signal {-child.code}" if child.code < 0 else f"exit code {child.code}")
    raise FileCheckError(
        f"The process that checks files died {ATTEMPTS} times ({', '.join(failures)}). Memory may have run out: "
        "free some, or give a smaller file."
    )


def main(arguments: Sequence[str]) -> int:
    """Run the check given as the only argument and print the result as JSON; the child's entry point."""
    os.nice(NICE)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    question = json.loads(arguments[0])
    if "job" in question:
        answer = asdict(_check_job(question["job"]))
    else:
        answer = asdict(_FileScan(Path(question["file"]), None, "auto").read_all().result())
    with contextlib.suppress(BrokenPipeError):  # the parent has just died
        os.write(sys.stdout.fileno(), json.dumps(answer).encode())
    return 0


def _check_job(question: dict[str, Any]) -> JobCheck:
    validation = question["validation"]
    return _check_files(
        Path(question["training"]),
        None if validation is None else Path(validation),
        question["method"],
        question["file_format"],
        question["on_leakage"],
    )


def _exit_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: it returns when the parent's end closes
    os._exit(1)


class _FileScan:
    """One pass over a file: yields its examples, counts them, and keeps the first faults."""

    def __init__(self, path: Path, method: Method | None, file_format: FileFormat) -> None:
        """method: the method that each example must be usable for; None: any method."""
        self.path, self.method, self.file_format = path, method, file_format
        self.examples = self.found = 0
        self.faults: list[str] = []
        self.labels: set[bool | None] = set()

    def __iter__(self) -> Iterator[Example]:
        for item in iter_examples(self.path, self.file_format):
            if isinstance(item, Fault):
                self._add(item)
            elif self.method is not None and (reason := method_fault(item, self.method)):
                self._add(Fault(item.line, reason))
            else:
                self.examples += 1
                self.labels.add(item.label)
                yield item

    def read_all(self) -> _FileScan:
        """Read the whole file without keeping the examples, and return self."""
        for _ in self:
            pass
        if self.method == "kto" and not self.found and len(self.labels) < 2:
            self._add(Fault(None, "kto learns from the difference: give good and bad answers, not one kind"))
        return self

    def result(self) -> FileFaults:
        """Return what was found so far."""
        return FileFaults(self.examples, tuple(self.faults), self.found)

    def _add(self, fault: Fault) -> None:
        self.found += 1
        if len(self.faults) < FAULTS_SHOWN:
            self.faults.append(str(fault))


def _check_files(
    training: Path, validation: Path | None, method: Method, file_format: FileFormat, on_leakage: OnLeakage
) -> JobCheck:
    first = _FileScan(training, method, file_format).read_all()
    if first.found:
        return _build_refusal(first.result(), "training")
    if first.examples < MIN_EXAMPLES:
        message = f"Training file has {first.examples} example(s), but must have at least {MIN_EXAMPLES} examples"
        return JobCheck("invalid_n_examples", message, "training_file")
    if validation is None:
        return JobCheck()
    second = _FileScan(validation, method, "auto")
    validation_examples = list(second)
    if second.found:
        return _build_refusal(second.result(), "validation")
    if on_leakage == "drop":
        return JobCheck()
    try:
        refuse_leakage(
            _FileScan(training, method, file_format),
            validation_examples,
            training_file=Path("the training file"),
            validation_file=Path("the validation file"),
        )
    except DataError as error:
        shown = tuple(str(fault) for fault in error.faults[:FAULTS_SHOWN])
        return _build_refusal(FileFaults(len(validation_examples), shown, len(error.faults)), "validation")
    return JobCheck()


def _build_refusal(result: FileFaults, role: str) -> JobCheck:
    message = f"The {role} file has {result.found} fault(s): {result.describe()}"
    return JobCheck(f"invalid_{role}_file", message, f"{role}_file")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
