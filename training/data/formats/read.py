"""Reads data files into examples: the public functions of this package. Imports no torch.

for example in iter_examples(path):          # streams; each is an Example or a Fault
    …
examples = read_examples(path, method="dpo")  # all of them, or DataError with every fault

`record_files` finds the records in a file, `record_formats` parses one into an example.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.config.config import FileFormat, Method
from training.data.examples import Example, ExampleError, Kind
from training.data.formats.json_records import Broken
from training.data.formats.record_files import read_records
from training.data.formats.record_formats import parse_record

__all__ = ["FAULTS_SHOWN", "METHOD_KINDS", "DataError", "Fault", "find_method_fault", "iter_examples", "read_examples"]

FAULTS_SHOWN = 20
"""Faults listed in the text of a `DataError`; its `faults` has them all."""
METHOD_KINDS: Mapping[Method, tuple[Kind, ...]] = {
    "supervised": ("chat", "prompt_completion"),
    "text": ("text",),
    "dpo": ("preference",),
    "kto": ("labelled",),
}
"""The kinds of examples for each method."""
_KIND_NAMES: Mapping[Kind, str] = {
    "chat": "a chat",
    "prompt_completion": "a prompt and its completion",
    "preference": "a pair of a preferred and a rejected answer",
    "labelled": "an answer with a label",
    "text": "plain text",
}


@dataclass(frozen=True)
class Fault:
    """One fault of a data file."""

    line: int | None
    """The line, in a JSON array the element, in Parquet the row, counted from 1; None for the file as a whole."""
    reason: str
    """What is wrong and what was expected."""
    unit: str = "line"
    """The unit of `line`: `line`, `element` in a JSON array, or `row` in Parquet."""

    def __str__(self) -> str:
        return self.reason if self.line is None else f"{self.unit} {self.line}: {self.reason}"


class DataError(ValueError):
    """A data file with faults, all of them at once."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        self.path = path
        self.faults = faults
        shown = "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN])
        more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        super().__init__(f"{path} has {len(faults)} error(s):{shown}{more}")


def iter_examples(path: Path, file_format: FileFormat = "auto") -> Iterator[Example | Fault]:
    """Yield the examples in the file at `path`, in order, and between them its faults; raises nothing.

    Each record may have another format unless `file_format` names one. JSONL, CSV, Parquet and text are streamed; a
    JSON array, at most 1 GiB, is read whole. A file that can't be read, or is empty, yields one fault.
    """
    for found, _ in _iter_with_units(path, file_format):
        yield found


def read_examples(path: Path, file_format: FileFormat = "auto", method: Method | None = None) -> list[Example]:
    """Read the examples in the file at `path`, in order; each record may have another format.

    Args:
        file_format: the format of every record; `auto` detects it record by record.
        method: the training method; a record that it can't train on is a fault, too.

    Raises:
        DataError: the file can't be read, is empty, or has faults; all are listed.
    """
    examples: list[Example] = []
    faults: list[Fault] = []
    for found, unit in _iter_with_units(path, file_format):
        if isinstance(found, Fault):
            faults.append(found)
        elif method is not None and (reason := find_method_fault(found, method)):
            faults.append(Fault(found.line, reason, unit))
        else:
            examples.append(found)
    if faults:
        raise DataError(path, faults)
    return examples


def find_method_fault(example: Example, method: Method) -> str | None:
    """Return why `method` can't train on `example`, and which method can; None if it can."""
    if example.kind in METHOD_KINDS[method]:
        return None
    fitting = next(name for name, kinds in METHOD_KINDS.items() if example.kind in kinds)
    wanted = " or ".join(_KIND_NAMES[kind] for kind in METHOD_KINDS[method])
    given = _KIND_NAMES[example.kind]
    return f"it is {given}, but `method: {method}` needs {wanted}; use `method: {fitting}`, or other data"


def _iter_with_units(path: Path, file_format: FileFormat) -> Iterator[tuple[Example | Fault, str]]:
    """Yield examples and faults, each with the unit of its position."""
    empty = True
    for unit, place, record in read_records(path, file_format):
        empty = False
        if isinstance(record, Broken):
            yield Fault(place, record.reason, unit), unit
            continue
        try:
            yield parse_record(record, place or 0, file_format), unit
        except ExampleError as error:
            for reason in error.faults:
                yield Fault(place, reason, unit), unit
    if empty:
        yield Fault(None, "it is empty; add at least one example"), "line"
