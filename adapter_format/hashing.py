"""Hashes of files: of data, of adapters, and the one that names a base model. Imports no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """The hex digest of the file at `path`, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def base_model_sha256(model_dir: Path) -> str:
    """The hash that names a base model: of its safetensors files' names and content hashes, sorted by name."""
    files = sorted(model_dir.glob("*.safetensors"))
    return hashlib.sha256("".join(f"{file.name} {file_sha256(file)}\n" for file in files).encode()).hexdigest()
