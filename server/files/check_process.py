"""The child process that checks files of examples: `python -m server.files.check_process QUESTION`.

It answers one question with one line of JSON, runs at a low priority, and ends when its parent does, in whatever way
that ends. After a small upload its start is all that the client waits for, so it imports only what it needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.config.config import FileFormat, Method, OnLeakage
from training.data.examples import Example
from training.data.formats.read import FAULTS_SHOWN, DataError, Fault, find_method_fault, iter_examples

MIN_EXAMPLES = 10
"""Fewest examples in a training file, as OpenAI has it: https://platform.openai.com/docs/guides/supervised-fine-tuning"""
NICE = 10


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
            elif self.method is not None and (reason := find_method_fault(item, self.method)):
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
            self._add(Fault(None, "kto needs both good and bad answers; add the missing kind"))
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
    from training.data.splits import refuse_leakage  # late: it loads NumPy, which takes as long as all of the rest

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
    message = f"The {role} file has {result.found} error(s): {result.describe()}"
    return JobCheck(f"invalid_{role}_file", message, f"{role}_file")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
