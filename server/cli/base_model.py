"""Finds the base model for a command; builds the embedded one if none is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serving import BaseModel, BaseModelError, resolve_base_model

DEMO_CACHE = "demo-model"
"""Folder under the cache directory, with one folder per recipe."""


def open_base_model(model: str | None, cache_dir: Path) -> BaseModel:
    """Return the base model that `model` names; None means the embedded demo base, built now if necessary.

    Raises:
        BaseModelError: the model doesn't exist or can't be served.
    """
    path = model or str(embedded_base_model(cache_dir))
    return resolve_base_model(path, hash_cache=cache_dir / "model-hashes.json")


def embedded_base_model(cache_dir: Path, *, seed: int | None = None) -> Path:
    """Return the folder of the embedded base; builds it in a child process, which loads torch.

    seed: for different weights than the recipe's.

    Raises:
        BaseModelError: the build failed; the reason has been printed on the terminal.
    """
    built = subprocess.run(build_command(cache_dir, seed), stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        raise BaseModelError(
            f"The embedded base model couldn't be built (exit code {built.returncode}; see the reason above). Fix "
            "the problem, or use your own model with --model."
        )
    return Path(built.stdout.strip().splitlines()[-1])


def build_command(cache_dir: Path, seed: int | None) -> list[str]:
    """Return the command that builds the embedded base unless it exists; concurrent calls build it once."""
    command = [sys.executable, "-m", "training.demo", "--cache", str(cache_dir / DEMO_CACHE)]
    return command if seed is None else [*command, "--seed", str(seed)]
