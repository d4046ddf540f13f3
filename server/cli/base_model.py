"""Finds the base model that a command is about, building the embedded one where none is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serving import BaseModel, BaseModelError, resolve_base_model

DEMO_CACHE = "demo-model"
"""Folder under the cache directory; inside it one folder a recipe."""


def open_base_model(model: str | None, cache_dir: Path) -> BaseModel:
    """Return the base model that `model` names; None means the embedded demo base, built now if it isn't there yet.

    Raises:
        BaseModelError: there is no such model, or it cannot be served.
    """
    path = model or str(embedded_base_model(cache_dir))
    return resolve_base_model(path, hash_cache=cache_dir / "model-hashes.json")


def embedded_base_model(cache_dir: Path, *, seed: int | None = None) -> Path:
    """Return the folder of the embedded base, built in a process of its own (it needs torch, and this one stays light).

    seed: of other weights than the recipe's.

    Raises:
        BaseModelError: it could not be built; its own message is on the terminal.
    """
    built = subprocess.run(build_command(cache_dir, seed), stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        raise BaseModelError(
            f"The embedded base model could not be built (exit code {built.returncode}; the reason stands above). "
            "Mend it, or name a model of your own with --model."
        )
    return Path(built.stdout.strip().splitlines()[-1])


def build_command(cache_dir: Path, seed: int | None) -> list[str]:
    """Return what builds the embedded base, unless it is there; several at once build one."""
    command = [sys.executable, "-m", "training.demo", "--cache", str(cache_dir / DEMO_CACHE)]
    return command if seed is None else [*command, "--seed", str(seed)]
