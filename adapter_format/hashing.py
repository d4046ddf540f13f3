"""Hashes of files: of data, of adapters, and the one that identifies a base model."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """The sha256 of the file's bytes, in hex, without holding them in memory. Raises: OSError."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def base_model_sha256(path: Path) -> str:
    """Which weights are in the folder `path`: a hash over the names and contents of its *.safetensors files."""
    listing = hashlib.sha256()
    for file in weight_files(path):
        listing.update(f"{file.name} {file_sha256(file)}\n".encode())
    return listing.hexdigest()


def weight_files(path: Path) -> list[Path]:
    """The *.safetensors files directly in the folder `path`, by name."""
    return sorted(path.glob("*.safetensors"), key=lambda file: file.name)
