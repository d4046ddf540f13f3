"""`tuneloop data`: check, view and clean training data.

Whatever needs a tokenizer runs in a child process: this package never loads torch or transformers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_type_hints

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from server.cli.console import err, out
from training.config.config import ConfigError, FileFormat
from training.data.cleaning.clean import CleaningConfig, CleaningFiles, SplitFractions, clean_file
from training.data.formats.read import DataError, Fault, iter_examples

app = typer.Typer(no_args_is_help=True, help="Check, view and clean training data.")

_OPTION_TYPES = {"near_duplicates": float, "languages": list[str] | None, "personal_data": str}
"""Settings that the command line takes as something else: 0 is none, and what it takes is judged by the cleaning."""
_SHOW_EVERY = 500
"""Rows between two updates of the progress bar."""

File = Annotated[
    Path, typer.Argument(help="JSONL, JSON, CSV, Parquet or plain text; docs/data.md describes every format.")
]
Format = Annotated[str, typer.Option("--format", help=f"File format: {', '.join(get_args(FileFormat))}.")]
Base = Annotated[
    str | None, typer.Option(help="Base model (folder or hub id) whose tokenizer and chat template to use.")
]


@app.command()
def check(
    file: File,
    format_: Format = "auto",
    base: Base = None,
    config: Annotated[Path | None, typer.Option(help="YAML config of the run that will use the file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check every row: list each error with its line, or report statistics. Exits with code 2 on errors.

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
    tokens: Annotated[bool, typer.Option("--tokens", help="Mark token boundaries.")] = False,
    base: Base = None,
    line: Annotated[int | None, typer.Option(min=1, help="Show only the example on this line.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of examples to show.")] = 3,
    max_length: Annotated[
        int | None, typer.Option(min=8, help="Show where examples are truncated at this many tokens.")
    ] = None,
    train_on: Annotated[
        str | None, typer.Option(help="Messages to train on: assistant, last_assistant or all. Default: assistant.")
    ] = None,
) -> None:
    """Show examples with the trained text in color; with a base model, as the tokens it is trained on.

    Examples:

      tuneloop data show examples.jsonl

      tuneloop data show examples.jsonl --tokens --base ./my-model --line 12
    """
    flags = [*format_option("--base-model", base), *(["--tokens"] if tokens else []), *format_option("--line", line)]
    flags += [*format_option("--max-length", max_length), *format_option("--train-on", train_on)]
    start_module("training.inspection.show.show", str(file), *flags, "--limit", str(limit))


def _take_settings(prepare: Callable[..., None]) -> Callable[..., None]:
    """Let the command take each setting of a cleaning as an option, before its other options."""
    hints, options = get_type_hints(CleaningConfig, include_extras=True), []
    for setting in fields(CleaningConfig):
        given, words = get_args(hints[setting.name])
        kind = _OPTION_TYPES.get(setting.name, given)
        metavar = "<str>" if kind == list[str] | None else None
        option = Annotated[kind, typer.Option(help=words, metavar=metavar)]  # type: ignore[valid-type]
        default = None if setting.default == () else setting.default
        options.append(Parameter(setting.name, Parameter.KEYWORD_ONLY, default=default, annotation=option))
    own = signature(prepare, eval_str=True)
    parameters = sorted([*options, *own.parameters.values()], key=lambda parameter: parameter.kind)
    vars(prepare)["__signature__"] = own.replace(parameters=parameters[:-1])  # without **settings
    return prepare


@app.command()
@_take_settings
def prepare(
    file: File,
    output: Annotated[
        Path, typer.Option(help="Output folder, or a .jsonl file for the kept rows. Nothing is overwritten.")
    ],
    format_: Format = "auto",
    *,
    split: Annotated[
        bool,
        typer.Option("--split", help="Split into train, validation and holdout; similar rows stay in the same part."),
    ] = False,
    validation_fraction: Annotated[
        float | None, typer.Option(help="With --split: fraction for validation, 0 to 0.5. Default: 0.1.")
    ] = None,
    holdout_fraction: Annotated[
        float | None, typer.Option(help="With --split: fraction to hold out, 0 to 0.5. Default: 0.1.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="With --split: random seed; the same seed gives the same split. Default: 42.")
    ] = None,
    **settings: Any,
) -> None:
    """Clean a file: normalize text, drop empty, duplicate and unwanted rows, and report what was dropped and why.

    Kept rows are written as OpenAI JSONL, dropped rows to a separate file with their line and the reason.

    Examples:

      tuneloop data prepare raw.jsonl --output clean/

      tuneloop data prepare raw.csv --output clean.jsonl --languages en --personal-data mask

      tuneloop data prepare raw.jsonl --output clean/ --split --holdout-fraction 0.05
    """
    near, languages = settings["near_duplicates"] or None, settings["languages"] or ()
    config = CleaningConfig(**settings | {"near_duplicates": near, "languages": languages})
    fractions = _read_split(split, validation=validation_fraction, holdout=holdout_fraction, seed=seed)
    files = CleaningFiles.at(output, split=split)
    with row_progress(file) as on_row:
        report = clean_file(file, files, config, file_format=file_format(format_), split=fractions, on_row=on_row)
    out.print(report.to_text(), markup=False)
    for path in files.all():
        out.print(f"  {path}", markup=False)


def _read_split(split: bool, **given: float | None) -> SplitFractions | None:
    """Return the split that the options ask for.

    Raises:
        ConfigError: a fraction is out of range, or there are options for a split but no `--split`.
    """
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if chosen and not split:
        flags = {"validation": "--validation-fraction", "holdout": "--holdout-fraction", "seed": "--seed"}
        raise ConfigError([f"`{flags[name]}` needs `--split`. Add it, or leave this option out." for name in chosen])
    return SplitFractions(**chosen) if split else None


def file_format(name: str) -> FileFormat:
    """Return `name` if it is a known format.

    Raises:
        ConfigError: it isn't.
    """
    if name not in get_args(FileFormat):
        raise ConfigError([f"`--format` is {name!r}, but must be one of {', '.join(get_args(FileFormat))}."])
    return cast(FileFormat, name)


def refuse_faults(file: Path, format_: FileFormat) -> None:
    """Raise `DataError` with every error in `file`; the rows aren't kept in memory."""
    faults = [row for row in iter_examples(file, format_) if isinstance(row, Fault)]
    if faults:
        raise DataError(file, faults)


def format_option(flag: str, value: object) -> list[str]:
    """Return `flag` and its value, or an empty list."""
    return [] if value is None else [flag, str(value)]


def start_module(module: str, *arguments: str) -> None:
    """Run `python -m module` on this terminal and exit with its exit code."""
    code = subprocess.run([sys.executable, "-m", module, *arguments]).returncode
    raise typer.Exit(code if code >= 0 else 128 - code)


@contextmanager
def row_progress(file: Path) -> Iterator[Callable[[int | None], None]]:
    """Show a progress bar over the lines of `file`, with an estimate if they can be counted; only on a terminal."""
    columns = (TextColumn("Cleaning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=count_lines(file) if err.is_terminal else None)

        def move(line: int | None) -> None:
            if line is not None and line % _SHOW_EVERY == 0:
                progress.update(task, completed=line)

        yield move


def count_lines(file: Path) -> int | None:
    """Return the number of lines; None if rows aren't lines or the file can't be read."""
    if file.suffix.lower() not in (".jsonl", ".ndjson", ".csv", ".txt", ".md") or not file.is_file():
        return None
    with file.open("rb") as content:
        return sum(block.count(b"\n") for block in iter(lambda: content.read(1 << 20), b""))
