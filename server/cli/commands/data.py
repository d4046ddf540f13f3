"""`tuneloop data`: look at a file of examples, and clean it, before any training.

What needs a tokenizer runs as a process of its own: this package never loads torch or transformers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from server.cli.console import err, out
from training.config.config import ConfigError, FileFormat
from training.data.cleaning.clean import CleaningConfig, CleaningFiles, PersonalDataPolicy, SplitFractions, clean_file
from training.data.formats.read import DataError, Fault, iter_examples

app = typer.Typer(no_args_is_help=True, help="Look at a file of examples, and clean it, before any training.")

_DEFAULTS = CleaningConfig()
_SHOW_EVERY = 500
"""Rows between two moves of the bar."""

File = Annotated[Path, typer.Argument(help="JSONL, JSON, CSV, Parquet or plain text; docs/data.md shows every format.")]
Format = Annotated[str, typer.Option("--format", help=f"How the file is written: {', '.join(get_args(FileFormat))}.")]
Base = Annotated[
    str | None, typer.Option(help="A base model, folder or hub id: its tokenizer counts, its template renders chats.")
]


@app.command()
def check(
    file: File,
    format_: Format = "auto",
    base: Base = None,
    config: Annotated[Path | None, typer.Option(help="The YAML of the run that the file is for.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Check every row; name each fault with its line, or report what the file holds. Exit code 2 on faults.

    Examples:

      tuneloop data check examples.jsonl

      tuneloop data check examples.csv --format alpaca --base ./my-model

      tuneloop data check examples.jsonl --config my-run.yaml
    """
    refuse_faults(file, file_format(format_))
    flags = [*format_option("--format", format_ if format_ != "auto" else None), *format_option("--base-model", base)]
    flags += [*format_option("--config", config), *(["--json"] if as_json else [])]
    start_module("training.inspection.data_report", str(file), *flags)


@app.command()
def show(
    file: File,
    tokens: Annotated[bool, typer.Option("--tokens", help="Put a bar between tokens.")] = False,
    base: Base = None,
    line: Annotated[int | None, typer.Option(min=1, help="Only the example at this line.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many examples.")] = 3,
    max_length: Annotated[int | None, typer.Option(min=8, help="Show what is cut off at so many tokens.")] = None,
    train_on: Annotated[
        str | None, typer.Option(help="As in training: assistant, last_assistant or all. Default: assistant.")
    ] = None,
) -> None:
    """Show examples with what is trained in colour; with a base model, token by token as it will see them.

    Examples:

      tuneloop data show examples.jsonl

      tuneloop data show examples.jsonl --tokens --base ./my-model --line 12
    """
    flags = [*format_option("--base-model", base), *(["--tokens"] if tokens else []), *format_option("--line", line)]
    flags += [*format_option("--max-length", max_length), *format_option("--train-on", train_on)]
    start_module("training.inspection.show.show", str(file), *flags, "--limit", str(limit))


@app.command()
def prepare(
    file: File,
    output: Annotated[
        Path, typer.Option(help="A folder, or a .jsonl file for the rows that stay. Nothing is overwritten.")
    ],
    format_: Format = "auto",
    normalize_unicode: Annotated[
        bool, typer.Option(help="NFC, and no control or zero-width characters.")
    ] = _DEFAULTS.normalize_unicode,
    normalize_whitespace: Annotated[
        bool, typer.Option(help="No blanks at ends of lines, at most two blank lines; code is left alone.")
    ] = _DEFAULTS.normalize_whitespace,
    min_answer_words: Annotated[
        int, typer.Option(help="Words that an answer must have; a Chinese or Japanese sign is one.")
    ] = _DEFAULTS.min_answer_words,
    min_answer_chars: Annotated[
        int, typer.Option(help="Characters that an answer must have.")
    ] = _DEFAULTS.min_answer_chars,
    min_chars: Annotated[int, typer.Option(help="Characters that a row must have.")] = _DEFAULTS.min_chars,
    max_chars: Annotated[
        int | None, typer.Option(help="Characters that a row may have. Default: no limit.")
    ] = _DEFAULTS.max_chars,
    exact_duplicates: Annotated[
        bool, typer.Option(help="Drop rows that were there before.")
    ] = _DEFAULTS.exact_duplicates,
    near_duplicates: Annotated[
        float, typer.Option(help="Drop rows so alike, 0.3 to 1, to one before; 0 keeps them and is faster.")
    ] = _DEFAULTS.near_duplicates or 0.0,
    languages: Annotated[
        list[str] | None, typer.Option(help="Keep answers in this language, such as en or zh; may be given often.")
    ] = None,
    personal_data: Annotated[
        str, typer.Option(help=f"Emails, numbers and ids: {', '.join(get_args(PersonalDataPolicy))}.")
    ] = _DEFAULTS.personal_data,
    split: Annotated[
        bool, typer.Option("--split", help="Write train, validation and holdout; similar rows stay together.")
    ] = False,
    validation_fraction: Annotated[float, typer.Option(help="With --split: share for validation, 0 to 0.5.")] = 0.1,
    holdout_fraction: Annotated[float, typer.Option(help="With --split: share held out, 0 to 0.5.")] = 0.1,
    seed: Annotated[int, typer.Option(help="With --split: the same seed gives the same parts.")] = 42,
) -> None:
    """Clean a file: make text uniform, drop what is empty, twice there or unwanted, and say what went and why.

    What stays is written as OpenAI JSONL, what goes into a file of its own with line and reason.

    Examples:

      tuneloop data prepare raw.jsonl --output clean/

      tuneloop data prepare raw.csv --output clean.jsonl --languages en --personal-data mask

      tuneloop data prepare raw.jsonl --output clean/ --split --holdout-fraction 0.05
    """
    config = CleaningConfig(
        normalize_unicode=normalize_unicode,
        normalize_whitespace=normalize_whitespace,
        min_answer_words=min_answer_words,
        min_answer_chars=min_answer_chars,
        min_chars=min_chars,
        max_chars=max_chars,
        exact_duplicates=exact_duplicates,
        near_duplicates=near_duplicates or None,
        languages=tuple(languages or ()),
        personal_data=cast(PersonalDataPolicy, personal_data),
    )
    fractions = SplitFractions(validation_fraction, holdout_fraction, seed) if split else None
    files = CleaningFiles.at(output, split=split)
    with row_progress(file) as on_row:
        report = clean_file(file, files, config, file_format=file_format(format_), split=fractions, on_row=on_row)
    out.print(report.to_text(), markup=False)
    for path in files.all():
        out.print(f"  {path}", markup=False)


def file_format(name: str) -> FileFormat:
    """Return `name`, when it is a format.

    Raises:
        ConfigError: it is none.
    """
    if name not in get_args(FileFormat):
        raise ConfigError([f"`--format` is {name!r}, but must be one of {', '.join(get_args(FileFormat))}."])
    return cast(FileFormat, name)


def refuse_faults(file: Path, format_: FileFormat) -> None:
    """Raise `DataError` with every fault of `file`; its rows are not kept in memory."""
    faults = [row for row in iter_examples(file, format_) if isinstance(row, Fault)]
    if faults:
        raise DataError(file, faults)


def format_option(flag: str, value: object) -> list[str]:
    """Return `flag` with its value, or nothing."""
    return [] if value is None else [flag, str(value)]


def start_module(module: str, *arguments: str) -> None:
    """Run `python -m module` on this terminal and leaves with its exit code."""
    code = subprocess.run([sys.executable, "-m", module, *arguments]).returncode
    raise typer.Exit(code if code >= 0 else 128 - code)


@contextmanager
def row_progress(file: Path) -> Iterator[Callable[[int | None], None]]:
    """A bar that moves with the lines of `file`, with an estimate where they can be counted; none off a terminal."""
    columns = (TextColumn("Cleaning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=count_lines(file) if err.is_terminal else None)

        def move(line: int | None) -> None:
            if line is not None and line % _SHOW_EVERY == 0:
                progress.update(task, completed=line)

        yield move


def count_lines(file: Path) -> int | None:
    """Lines of a file whose rows are lines; None for other files, and for those that can't be read."""
    if file.suffix.lower() not in (".jsonl", ".ndjson", ".csv", ".txt", ".md") or not file.is_file():
        return None
    with file.open("rb") as content:
        return sum(block.count(b"\n") for block in iter(lambda: content.read(1 << 20), b""))
