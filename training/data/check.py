"""Checks whether files of examples can be trained on: one file for any method, or the files of a job for its own.

After a small upload this is all that the client waits for, so it imports only what it needs: neither torch nor NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.config.config import FileFormat, Method, OnLeakage
from training.data.examples import Example
from training.data.formats.read import FAULTS_SHOWN, DataError, Fault, find_method_fault, iter_examples

MIN_EXAMPLES = 10
"""Fewest examples in a training file, as OpenAI has it: https://platform.openai.com/docs/guides/supervised-fine-tuning"""


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


def check_file(path: Path) -> FileFaults:
    """Check whether each record of the file can be trained on by some method."""
    return _FileScan(path, None, "auto").read_all().result()


def check_job(
    training: Path, validation: Path | None, method: Method, file_format: FileFormat, on_leakage: OnLeakage
) -> JobCheck:
    """Check whether a job can train by `method` on `training` and be evaluated on `validation`."""
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


def _build_refusal(result: FileFaults, role: str) -> JobCheck:
    message = f"The {role} file has {result.found} error(s): {result.describe()}"
    return JobCheck(f"invalid_{role}_file", message, f"{role}_file")
