"""Looks through files of examples in a process of its own: both ends of it. Knows no HTTP and no database.

`python -m server.files.check QUESTION` answers one question with one line of JSON. It has a low priority, and ends when
its owner does, however that ends.
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
from training.data.formats.read import FAULTS_SHOWN, DataError, Fault, find_method_fault, iter_examples
from training.data.splits import refuse_leakage

MIN_EXAMPLES = 10
"""Fewest examples in a training file, as OpenAI has it: https://platform.openai.com/docs/guides/supervised-fine-tuning"""
ATTEMPTS = 3
"""Times that a check is tried whose process dies."""
START_S = 120.0
SLOWEST_BYTES_PER_S = 1e6
"""How long a check may take: it has this long to start, and goes through files at this pace at least. With two cores
to itself it does 60 MB/s, but it gives way to all else."""
COMMAND = (sys.executable, "-m", "server.files.check")
NICE = 10


class FileCheckError(Exception):
    """The process died each time it was tried, or came to no end. The message says how."""


@dataclass(frozen=True)
class FileFaults:
    """What one file was found to be."""

    examples: int
    faults: tuple[str, ...]
    """The first `FAULTS_SHOWN`, each with its line: `line 3: …`."""
    found: int
    """How many there are in all; 0 for a file that can be learned from."""

    def told(self) -> str:
        """The faults as sentences for a person, ending in "and N more" where some are left out."""
        more = self.found - len(self.faults)
        return "; ".join(self.faults) + (f"; and {more} more" if more else "")


@dataclass(frozen=True)
class JobCheck:
    """What the files of a job were found to be."""

    code: str | None = None
    """`invalid_training_file`, `invalid_validation_file` or `invalid_n_examples`; None when the job may run."""
    message: str | None = None
    """What is wrong, for a person: the faults by line. It holds no path of this machine."""
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


def main(arguments: Sequence[str]) -> int:
    """Answers the question in the one argument on standard output; what runs as the process."""
    os.nice(NICE)
    threading.Thread(target=_end_with_owner, daemon=True).start()
    question = json.loads(arguments[0])
    if "job" in question:
        answer = asdict(_job_check(question["job"]))
    else:
        answer = asdict(_Tally(Path(question["file"]), None, "auto").whole().result())
    with contextlib.suppress(BrokenPipeError):  # the owner has died just now
        os.write(sys.stdout.fileno(), json.dumps(answer).encode())
    return 0


def _job_check(question: dict[str, Any]) -> JobCheck:
    validation = question["validation"]
    return _check(
        Path(question["training"]),
        None if validation is None else Path(validation),
        question["method"],
        question["file_format"],
        question["on_leakage"],
    )


def _end_with_owner() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: it returns at the end
    os._exit(1)


class _Tally:
    """Goes through a file once: gives its examples, counts them, and keeps the first faults."""

    def __init__(self, path: Path, method: Method | None, file_format: FileFormat) -> None:
        """method: what must be able to learn from each example; None: any."""
        self.path, self.method, self.file_format = path, method, file_format
        self.examples = self.found = 0
        self.faults: list[str] = []
        self.labels: set[bool | None] = set()

    def __iter__(self) -> Iterator[Example]:
        for item in iter_examples(self.path, self.file_format):
            if isinstance(item, Fault):
                self._add(item)
            elif self.method is not None and (reason := find_method_fault(item, self.method)):
                self._add(Fault(item.line, reason))
            else:
                self.examples += 1
                self.labels.add(item.label)
                yield item

    def whole(self) -> _Tally:
        """Itself, once it has gone through the file and kept no example."""
        for _ in self:
            pass
        if self.method == "kto" and not self.found and len(self.labels) < 2:
            self._add(Fault(None, "kto learns from the difference: give good and bad answers, not one kind"))
        return self

    def result(self) -> FileFaults:
        """What was found so far."""
        return FileFaults(self.examples, tuple(self.faults), self.found)

    def _add(self, fault: Fault) -> None:
        self.found += 1
        if len(self.faults) < FAULTS_SHOWN:
            self.faults.append(str(fault))


def _check(
    training: Path, validation: Path | None, method: Method, file_format: FileFormat, on_leakage: OnLeakage
) -> JobCheck:
    first = _Tally(training, method, file_format).whole()
    if first.found:
        return _refused(first.result(), "training")
    if first.examples < MIN_EXAMPLES:
        message = f"Training file has {first.examples} example(s), but must have at least {MIN_EXAMPLES} examples"
        return JobCheck("invalid_n_examples", message, "training_file")
    if validation is None:
        return JobCheck()
    second = _Tally(validation, method, "auto")
    measured = list(second)
    if second.found:
        return _refused(second.result(), "validation")
    if on_leakage == "drop":
        return JobCheck()
    try:
        refuse_leakage(
            _Tally(training, method, file_format),
            measured,
            training_file=Path("the training file"),
            validation_file=Path("the validation file"),
        )
    except DataError as error:
        shown = tuple(str(fault) for fault in error.faults[:FAULTS_SHOWN])
        return _refused(FileFaults(len(measured), shown, len(error.faults)), "validation")
    return JobCheck()


def _refused(result: FileFaults, role: str) -> JobCheck:
    message = f"The {role} file has {result.found} fault(s): {result.told()}"
    return JobCheck(f"invalid_{role}_file", message, f"{role}_file")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
