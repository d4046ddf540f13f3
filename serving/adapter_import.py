"""Takes in a PEFT adapter from somewhere else: copied aside, checked, renamed into place.

It refuses to know how the adapter came here, and archives: it is given a directory.
"""

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from serving.adapter import (
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Adapter,
    fine_tuned_model_name,
    new_adapter_id,
    read_adapter,
    read_json,
    scan_adapters,
)
from serving.adapter_check import adapter_files, check_adapter
from serving.base_model import BaseModel
from serving.engine import EngineLimits
from serving.errors import AdapterError
from serving.hashing import file_sha256

_KNOWN_FILES = frozenset(
    {
        CONFIG_FILE,
        WEIGHTS_FILE,
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    }
    | {"chat_template.jinja", "vocab.json", "merges.txt", "tokenizer.model", "README.md"}
)
_NAME = re.compile(r"[A-Za-z0-9][\w.:/@+-]{0,199}", re.ASCII)
_KEPT_FROM_MANIFEST = ("training_file_sha256", "config", "metrics", "versions")


def import_adapter(
    source_dir: Path,
    adapters_dir: Path,
    base: BaseModel,
    limits: EngineLimits,
    *,
    name: str | None = None,
    suffix: str = "imported",
    organization: str = "tuneloop",
) -> Adapter:
    """The adapter in `source_dir`, now a directory of its own under `adapters_dir`, bound to `base` by its manifest.

    name: what clients will call it; by default `fine_tuned_model_name(base.name, organization, suffix)`.
    Blocks while it copies and hashes: call it in a thread.
    Raises: AdapterError, and then nothing is left behind.
    """
    name = name or fine_tuned_model_name(base.name, organization, suffix)
    adapters_dir.mkdir(parents=True, exist_ok=True)
    _check_name(name, adapters_dir, base)
    files = adapter_files(source_dir)
    check_adapter(source_dir, base, limits)
    adapter_id = new_adapter_id()
    partial = adapters_dir / f".partial-{adapter_id}"
    try:
        partial.mkdir(mode=0o755)
        for file in sorted(_KNOWN_FILES & files.keys()):
            shutil.copyfile(files[file], partial / file, follow_symlinks=False)
        check_adapter(
            partial, base, limits
        )  # the copy is what will be served, and the source may have changed meanwhile
        came_with = read_json(source_dir / MANIFEST_FILE) if MANIFEST_FILE in files else {}
        _write_manifest(partial, _manifest(partial, adapter_id, name, base, came_with))
        partial.rename(adapters_dir / adapter_id)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _sync(adapters_dir)
    return read_adapter(adapters_dir / adapter_id)


def _check_name(name: str, adapters_dir: Path, base: BaseModel) -> None:
    if not _NAME.fullmatch(name):
        raise AdapterError(
            f"The name {name!r} must be 1 to 200 letters, digits or any of ._:/@+- and begin with a letter or digit."
        )
    taken = {adapter.name for adapter in scan_adapters(adapters_dir)[0]} | {base.name}
    if name in taken:
        raise AdapterError(f"The name {name!r} is taken, and a name never changes its bytes. Choose another name.")


def _manifest(path: Path, adapter_id: str, name: str, base: BaseModel, came_with: dict[str, Any]) -> dict[str, Any]:
    return {
        "manifest_version": 1,
        "id": adapter_id,
        "name": name,
        "created_at": int(time.time()),
        "base_model": base.name,
        "base_model_sha256": base.sha256,
        "files": {
            file.name: {"sha256": file_sha256(file), "bytes": file.stat().st_size} for file in sorted(path.iterdir())
        },
        **{key: came_with.get(key) for key in _KEPT_FROM_MANIFEST},
    }


def _write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest, and everything in the directory through to the disk."""
    (path / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    for file in path.iterdir():
        _sync(file)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
