"""`tuneloop export`: converts adapters to other formats, in a child process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Export adapters as full models, for engines that don't support adapters.")


@app.callback()
def _group() -> None:
    """A callback keeps `merge` a subcommand while it's the only one."""


@app.command()
def merge(
    base_model: Annotated[Path, typer.Option(help="Folder of the base model; it must not be quantized.")],
    adapter: Annotated[Path, typer.Option(help="Folder of a LoRA adapter trained on it.")],
    output: Annotated[Path, typer.Option(help="Folder to make; its name is the model's.")],
    dtype: Annotated[str, typer.Option(help="auto (same as the base model), float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Merge an adapter into its base model. The result is checked against both before it is saved.

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
