"""`tuneloop data`: look at a file of examples before any training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from server.commands.console import out
from training.formats import read_examples

app = typer.Typer(no_args_is_help=True, help="Look at a file of examples before any training.")


@app.command()
def check(file: Annotated[Path, typer.Argument(help="JSONL or JSON; the format is found out.")]) -> None:
    """Check every line; name each fault with its line number, or say what the file holds. Exit code 2 on faults.

    Example: tuneloop data check examples.jsonl
    """
    examples = read_examples(file)
    turns = Counter(
        sum(message.role == "assistant" for message in example.messages) + (example.completion is not None)
        for example in examples
    )
    out.print(f"{file}: {len(examples)} examples, no faults.")
    out.print("answers per example: " + ", ".join(f"{count} × {number}" for number, count in sorted(turns.items())))


@app.callback()
def _group() -> None:
    """Keeps `check` a subcommand while it is the only one."""
