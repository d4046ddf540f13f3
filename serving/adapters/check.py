"""Checks whether an adapter can be served: everything that would crash an engine, or be silently served wrongly.

Needs no engine: it reads JSON and safetensors, and never unpickles anything.
"""

import stat
from pathlib import Path
from typing import Any

from adapter_format.files import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE
from adapter_format.hashing import file_sha256
from serving.adapters.adapter import read_json
from serving.adapters.config import check_config, check_fits
from serving.adapters.tensors import check_tensors
from serving.adapters.tokens import check_tokens
from serving.base_model import BaseModel
from serving.engines.engine import EngineLimits
from serving.errors import AdapterError, quote

MAX_FILES = 64
"""PEFT writes two files; a tokenizer adds a handful."""
MAX_BYTES = 16 * 2**30
"""Bound on the whole directory; rank 512 on every layer of a 70B model takes 13 GB."""
PICKLED_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


def check_adapter(path: Path, base: BaseModel, limits: EngineLimits) -> None:
    """Raise AdapterError, naming the parameter or tensor at fault and the remedy, unless `path` can be served.

    The error is an AdapterMisfitError if only a restart of the engine is missing.
    A directory without a manifest is checked by its config and tensors only. Reads all of it: call it in a thread.
    """
    check_fits(path.name, check_loadable(path, base), limits)


def check_loadable(path: Path, base: BaseModel) -> dict[str, Any]:
    """Return the adapter_config.json of an adapter that an engine for `base` can serve, if started for its rank.

    Raises: AdapterError, naming the parameter or tensor at fault and the remedy.
    """
    files = adapter_files(path)
    for required in (CONFIG_FILE, WEIGHTS_FILE):
        if required not in files:
            raise AdapterError(
                f"{path.name} has no {required}. Save the adapter with PEFT's save_pretrained, with "
                "safe_serialization on."
            )
    if MANIFEST_FILE in files:
        _check_manifest(path, files, base)
    config = read_json(path / CONFIG_FILE)
    check_config(path.name, config)
    check_tokens(path.name, files, base)
    check_tensors(path / WEIGHTS_FILE, config, base)
    return config


def adapter_files(path: Path) -> dict[str, Path]:
    """Return name → path of every file in the directory, each checked to be a regular file and no pickle.

    Raises: AdapterError for anything else in it, and beyond the bounds on number and size.
    """
    if path.is_symlink() or not path.is_dir():
        raise AdapterError(
            f"{path.name} isn't a directory. Use a directory that was saved with PEFT's save_pretrained."
        )
    files: dict[str, Path] = {}
    total_bytes = 0
    for entry in path.iterdir():
        status = entry.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise AdapterError(
                f"{path.name}/{quote(entry.name)} isn't a regular file; links and directories aren't followed. "
                "Leave it out."
            )
        if entry.suffix.lower() in PICKLED_SUFFIXES:
            raise AdapterError(
                f"{path.name}/{quote(entry.name)} is a pickle, which can run code when loaded. Save the adapter as "
                "safetensors, and leave out this file."
            )
        files[entry.name] = entry
        total_bytes += status.st_size
        if len(files) > MAX_FILES or total_bytes > MAX_BYTES:
            raise AdapterError(
                f"{path.name} has more than {MAX_FILES} files or {MAX_BYTES} bytes. Leave out everything but "
                "the adapter."
            )
    return files


def _check_manifest(path: Path, files: dict[str, Path], base: BaseModel) -> None:
    """Raise AdapterError when the files aren't the ones that the manifest lists, or are for other weights."""
    manifest = read_json(path / MANIFEST_FILE)
    name = quote(manifest.get("name", path.name))
    made_for = manifest.get("base_model_sha256")
    if made_for not in (None, base.sha256):
        raise AdapterError(
            f"{name} was trained on different weights than those of {base.name!r}: base_model_sha256 is "
            f"{quote(made_for)[:12]}…, not {base.sha256[:12]}…. Serve it on its own base model, "
            f"{quote(manifest.get('base_model'))}, or train it again."
        )
    listed = manifest.get("files")
    if not isinstance(listed, dict) or set(listed) != set(files) - {MANIFEST_FILE}:
        raise AdapterError(f"{name}: the files don't match those in manifest.json. Import the adapter again.")
    for file, entry in listed.items():
        expected = entry.get("sha256") if isinstance(entry, dict) else None
        if file_sha256(files[file]) != expected:
            raise AdapterError(
                f"{name}: {file} is damaged or was changed (its sha256 differs from the manifest). Restore it from "
                "a copy, or train the adapter again."
            )
