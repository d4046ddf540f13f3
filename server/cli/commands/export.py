"""`tuneloop export`: other forms of what was trained. The heavy work is a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Make whole models out of adapters, for engines that take no adapters.")


@app.callback()
def _group() -> None:
    """A callback keeps `merge` a subcommand while it's the only one."""


@app.command()
def merge(
    base_model: Annotated[Path, typer.Option(help="Folder of the base model, not quantised.")],
    adapter: Annotated[Path, typer.Option(help="Folder of a LoRA adapter made for it.")],
    output: Annotated[Path, typer.Option(help="Folder to make; its name is the model's.")],
    dtype: Annotated[str, typer.Option(help="auto (as the base is stored), float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Merge an adapter into its base; the result is checked against both before it is put in place.

    Example: tuneloop export merge --base-model ./my-base --adapter ./adapters/adapter-1 --output ./my-merged-model
    """
    command = [
        sys.executable,
        "-m",
        "training.result.export",
        "merge",
        "--base-model",
        base_model,
        "--adapter",
        adapter,
    ]
    raise typer.Exit(subprocess.run([*map(str, command), "--output", str(output), "--dtype", dtype]).returncode)
