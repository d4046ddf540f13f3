"""Cleaning: normalises rows, and drops those that are empty, duplicate or unwanted. Imports no torch.

    for outcome in clean(iter_examples(path), CleaningConfig(languages=("en",))):
        match outcome:
            case Kept(example): …
            case Dropped(line, reason): …

`clean_file` does it from file to files, with a report, and can split the kept rows. Rows are streamed: only digests and
signatures of kept rows stay in memory, never the rows. The rules are in `rules`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from training.config.config import ConfigError, FileFormat
from training.data.cleaning.report import CleaningReport
from training.data.cleaning.rules import Cleaner, CleaningConfig, Dropped, Kept, PersonalDataPolicy, Reason
from training.data.examples import Example
from training.data.formats.read import DataError, Fault, iter_examples
from training.data.splits import Splitter

__all__ = [
    "CleaningConfig",
    "CleaningFiles",
    "CleaningReport",
    "Dropped",
    "Kept",
    "PersonalDataPolicy",
    "Reason",
    "SplitFractions",
    "clean",
    "clean_file",
]


def clean(rows: Iterable[Example | Fault], config: CleaningConfig) -> Iterator[Kept | Dropped]:
    """Yield the outcome for each row, in order; a row with faults is `Dropped`.

    Of duplicates the first is kept. Uses 40 to 70 bytes of memory per kept row, up to 1 kB with `near_duplicates`.
    """
    cleaner = Cleaner(config)
    faults: list[Fault] = []
    for row in rows:
        if faults and not (isinstance(row, Fault) and row.line == faults[0].line):
            yield _drop_faulty(faults)
            faults = []
        if isinstance(row, Fault):
            faults.append(row)
        else:
            yield cleaner.clean(row)
    if faults:
        yield _drop_faulty(faults)


def _drop_faulty(faults: list[Fault]) -> Dropped:
    """Return the outcome for the one row that all `faults` belong to."""
    return Dropped(faults[0].line, "fault", "; ".join(fault.reason for fault in faults))


@dataclass(frozen=True)
class SplitFractions:
    """The split of the kept rows; see `training.data.splits`."""

    validation: float = 0.1
    """Share of the kept rows, 0 to 0.5."""
    holdout: float = 0.1
    """Like `validation`, for the part that training never sees."""
    seed: int = 42

    def __post_init__(self) -> None:
        given = {"validation": self.validation, "holdout": self.holdout}
        faults = [
            f"`{name}_fraction` is {value}, but must be 0 to 0.5."
            for name, value in given.items()
            if not 0 <= value <= 0.5
        ]
        if faults:
            raise ConfigError(faults)


@dataclass(frozen=True)
class CleaningFiles:
    """The output files of a cleaning."""

    kept: tuple[Path, ...]
    """One file of all kept rows; or three: train, validation, holdout."""
    dropped: Path
    """The dropped rows, each as `{"line", "reason", "detail", "record"}`."""
    report: Path
    """The report as JSON."""

    @classmethod
    def at(cls, output: Path, *, split: bool) -> CleaningFiles:
        """Return files in the folder `output`; if that ends in `.jsonl`, it has the kept rows, others are beside it."""
        names = ("train", "validation", "holdout") if split else ("kept",)
        if output.suffix != ".jsonl":
            kept = [output / f"{name}.jsonl" for name in names]
            return cls(tuple(kept), output / "dropped.jsonl", output / "report.json")
        kept = [output.with_suffix(f".{name}.jsonl") for name in names] if split else [output]
        return cls(tuple(kept), output.with_suffix(".dropped.jsonl"), output.with_suffix(".report.json"))

    def all(self) -> tuple[Path, ...]:
        """Return all files."""
        return (*self.kept, self.dropped, self.report)

    def refuse_existing(self) -> None:
        """Raise `ConfigError` if one of the files exists."""
        there = [str(path) for path in self.all() if path.exists()]
        if there:
            raise ConfigError(
                [f"{', '.join(there)} already exists, and nothing is overwritten. Choose another `--output`."]
            )


def clean_file(
    source: Path,
    files: CleaningFiles,
    config: CleaningConfig,
    *,
    file_format: FileFormat = "auto",
    split: SplitFractions | None = None,
    on_row: Callable[[int | None], None] = lambda line: None,
) -> CleaningReport:
    """Clean `source` into `files` and return the report; kept rows are written as OpenAI JSONL.

    All files appear at the end, together; a cleaning that fails leaves none.

    Args:
        on_row: called with the line of each row when it is done.

    Raises:
        DataError: `source` can't be read or has no rows.
        ConfigError: one of `files` exists, or can't be written.
    """
    files.refuse_existing()
    try:
        return _clean_file(_read_rows(source, file_format), files, config, split, on_row)
    except OSError as error:  # reading raises none: an unreadable file is a fault
        where = files.report.parent
        raise ConfigError([f"Can't write to {where}: {error.strerror}. Choose another `--output`."]) from error


def _clean_file(
    rows: Iterator[Example | Fault],
    files: CleaningFiles,
    config: CleaningConfig,
    split: SplitFractions | None,
    on_row: Callable[[int | None], None],
) -> CleaningReport:
    files.report.parent.mkdir(parents=True, exist_ok=True)
    parts = {path: path.with_name(f".{path.name}.part") for path in files.all()}
    staged = files.kept[0].with_name(f".{files.kept[0].name}.all.part") if split else parts[files.kept[0]]
    try:
        splitter = Splitter(near_duplicates=config.near_duplicates is not None) if split else None
        report = _write_outcomes(clean(rows, config), staged, parts[files.dropped], splitter, on_row)
        if split and splitter:
            sides = splitter.assign_sides(split.validation, split.holdout, split.seed)
            report.parts = _distribute(staged, [parts[path] for path in files.kept], sides)
        _write_report(report, parts[files.report])
        files.refuse_existing()
        for path, part in parts.items():
            part.rename(path)
    finally:
        for part in (staged, *parts.values()):
            part.unlink(missing_ok=True)
    return report


def _read_rows(source: Path, file_format: FileFormat) -> Iterator[Example | Fault]:
    """Like `iter_examples`; a fault of the file as a whole is raised, since no cleaning can fix it."""
    for row in iter_examples(source, file_format):
        if isinstance(row, Fault) and row.line is None:
            raise DataError(source, [row])
        yield row


def _write_outcomes(
    outcomes: Iterator[Kept | Dropped],
    kept_file: Path,
    dropped_file: Path,
    splitter: Splitter | None,
    on_row: Callable[[int | None], None],
) -> CleaningReport:
    report = CleaningReport()
    with kept_file.open("wb") as kept, dropped_file.open("wb") as dropped:
        for outcome in outcomes:
            report.count(outcome)
            if isinstance(outcome, Kept):
                kept.write(_encode_line(outcome.example.to_record()))
                if splitter:
                    splitter.add(outcome.example)
                on_row(outcome.example.line)
            else:
                dropped.write(_encode_line(_dropped_record(outcome)))
                on_row(outcome.line)
    return report


def _distribute(staged: Path, parts: list[Path], sides: bytes) -> dict[str, int]:
    """Copy each line of `staged` into the part of its side; return the number of rows per part."""
    with ExitStack() as stack:
        rows = stack.enter_context(staged.open("rb"))
        files = [stack.enter_context(part.open("wb")) for part in parts]
        for side, row in zip(sides, rows, strict=True):
            files[side].write(row)
    return {name: sides.count(side) for side, name in enumerate(("training", "validation", "holdout"))}


def _write_report(report: CleaningReport, path: Path) -> None:
    path.write_text(json.dumps(report.to_dict(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _dropped_record(outcome: Dropped) -> dict[str, Any]:
    record = outcome.example.to_record() if outcome.example else None
    return {"line": outcome.line, "reason": outcome.reason, "detail": outcome.detail, "record": record}


def _encode_line(record: dict[str, Any]) -> bytes:
    """Encode `record` as a line of JSON; orjson can't encode numbers beyond 64 bits."""
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode()
