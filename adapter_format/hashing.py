"""Hashes of files: of data, of adapters, and the one that identifies a base model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

WEIGHTS = "model.safetensors"
"""The only file of a model's weights, where they aren't split into several."""
WEIGHTS_INDEX = "model.safetensors.index.json"
"""Lists the files of the weights where they are split, as `save_pretrained` writes it."""


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
    """The *.safetensors files directly in the folder `path` that its model consists of, by name.

    `model.safetensors`, which transformers prefer, and the files in its index: a folder may hold the same weights a
    second time, as Mistral's have `consolidated.safetensors`. All of them if it has neither, or its index can't be
    read.
    """
    files = sorted(path.glob("*.safetensors"), key=lambda file: file.name)
    try:
        parts = {WEIGHTS, *read_weights_index(path)}
    except (OSError, ValueError):
        parts = {WEIGHTS}
    return [file for file in files if file.name in parts] or files


def read_weights_index(path: Path) -> set[str]:
    """The files that the index in the folder `path` lists; none without an index.

    Raises: OSError, ValueError when it can't be read.
    """
    index = path / WEIGHTS_INDEX
    if not index.is_file():
        return set()
    try:
        return {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(repr(error)) from error
