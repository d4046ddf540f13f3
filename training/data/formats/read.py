"""Data files in, examples out: the front door. Owns what a fault is; knows no tokenizer and imports no torch.

for example in iter_examples(path):          # streams; each is an Example or a Fault
    …
examples = read_examples(path, method="dpo")  # all of them, or DataError with every fault

`record_files` finds the records in a file, `record_formats` makes an example of one.
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

__all__ = ["FAULTS_SHOWN", "METHOD_KINDS", "DataError", "Fault", "iter_examples", "method_fault", "read_examples"]

FAULTS_SHOWN = 20
"""Faults that the text of a `DataError` lists; its `faults` has them all."""
METHOD_KINDS: Mapping[Method, tuple[Kind, ...]] = {
    "supervised": ("chat", "prompt_completion"),
    "text": ("text",),
    "dpo": ("preference",),
    "kto": ("labelled",),
}
"""What each method learns from."""
_KIND_NAMES: Mapping[Kind, str] = {
    "chat": "a chat",
    "prompt_completion": "a prompt and its completion",
    "preference": "a pair of a better and a worse answer",
    "labelled": "an answer with a label",
    "text": "plain text",
}


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a data file."""

    line: int | None
    """The line, in a JSON array the element, in Parquet the row, counted from 1; None when it's the file as a whole."""
    reason: str
    """What is wrong and what was expected."""
    unit: str = "line"
    """What `line` counts: `line`, `element` in a JSON array, or `row` in Parquet."""

    def __str__(self) -> str:
        return self.reason if self.line is None else f"{self.unit} {self.line}: {self.reason}"


class DataError(ValueError):
    """A data file with faults, all of them at once."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        self.path = path
        self.faults = faults
        shown = "".join(f"\n  {fault}" for fault in faults[:FAULTS_SHOWN])
        more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        super().__init__(f"{path} has {len(faults)} fault(s):{shown}{more}")


def iter_examples(path: Path, file_format: FileFormat = "auto") -> Iterator[Example | Fault]:
    """The examples in the file at `path`, in their order, and between them what is wrong; it raises nothing.

    Each record may be of another format unless `file_format` names one. JSONL, CSV, Parquet and text are streamed; a
    JSON array, at most 1 GiB, is read whole. A file that can't be read, or holds nothing, gives one fault.
    """
    for found, _ in _found(path, file_format):
        yield found


def read_examples(path: Path, file_format: FileFormat = "auto", method: Method | None = None) -> list[Example]:
    """The examples in the file at `path`, in their order; each record may be of another format.

    Args:
        file_format: the format of every record; `auto` finds it out record by record.
        method: how they are to be learned; a record that it can't learn from is a fault too.

    Raises:
        DataError: the file can't be read, holds nothing, or has faults; all are listed.
    """
    examples: list[Example] = []
    faults: list[Fault] = []
    for found, unit in _found(path, file_format):
        if isinstance(found, Fault):
            faults.append(found)
        elif method is not None and (reason := method_fault(found, method)):
            faults.append(Fault(found.line, reason, unit))
        else:
            examples.append(found)
    if faults:
        raise DataError(path, faults)
    return examples


def method_fault(example: Example, method: Method) -> str | None:
    """Why `method` can't learn from `example`, and which method can; None when it can."""
    if example.kind in METHOD_KINDS[method]:
        return None
    fitting = next(name for name, kinds in METHOD_KINDS.items() if example.kind in kinds)
    wanted = " or ".join(_KIND_NAMES[kind] for kind in METHOD_KINDS[method])
    given = _KIND_NAMES[example.kind]
    return f"it is {given}, but `method: {method}` learns from {wanted}; use `method: {fitting}`, or other data"


def _found(path: Path, file_format: FileFormat) -> Iterator[tuple[Example | Fault, str]]:
    """Examples and faults, each with what its place counts."""
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
        yield Fault(None, "it is empty; give at least one example"), "line"
