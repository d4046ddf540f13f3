"""Imports a PEFT adapter from a directory: copied to a temporary directory, checked, renamed into place."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from adapter_format.disk import sync
from adapter_format.files import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE
from adapter_format.hashing import file_sha256
from adapter_format.manifest import MANIFEST_VERSION, Manifest
from adapter_format.names import InvalidNameError, fine_tuned_model_name, new_adapter_id
from serving.adapters.adapter import Adapter, read_adapter, read_json
from serving.adapters.check import adapter_files, check_loadable
from serving.adapters.config import check_fits
from serving.adapters.names import check_free, check_name, lock_names, remember_removed, taken_names
from serving.adapters.origin import check_origin
from serving.base_model import BaseModel
from serving.engines.engine import EngineLimits
from serving.errors import AdapterError

__all__ = ["KNOWN_FILES", "import_adapter", "remember_removed", "taken_names"]

KNOWN_FILES = frozenset(
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
"""The files that are copied of an imported adapter, beside what is kept of its manifest."""
_KEPT_FROM_MANIFEST: dict[str, type] = {
    "training_file_sha256": str,
    "config": dict,
    "metrics": dict,
    "versions": dict,
    "parity_reference": dict,
}
MAX_KEPT_BYTES = 2**20
"""Bound on what is kept of a manifest; it is read again whenever the directory changes, and listed to clients."""


def import_adapter(
    source_dir: Path,
    adapters_dir: Path,
    base: BaseModel,
    limits: EngineLimits | None = None,
    *,
    name: str | None = None,
    suffix: str = "imported",
    organization: str = "tuneloop",
    same_base: bool = False,
) -> Adapter:
    """Import the adapter in `source_dir` as a new directory under `adapters_dir`, bound to `base` by its manifest.

    limits: what it must fit now; None accepts what an engine could be started for, so that only the next one serves it.
    name: for clients; by default `fine_tuned_model_name(base.name, organization, suffix)`.
    same_base: the caller knows that it was trained on `base`, whatever its config calls that.
    Blocks while it copies and hashes: call it in a thread.
    Raises: AdapterError, and then nothing is left behind. AdapterNameError: the name is at fault.
    AdapterMisfitError: it is valid, but doesn't fit `limits`.
    """
    name = name or _make_name(base, organization, suffix)
    check_name(name)
    adapters_dir.mkdir(parents=True, exist_ok=True)
    check_free(name, adapters_dir, base)
    files = adapter_files(source_dir)
    config = check_loadable(source_dir, base)
    source_manifest = read_json(source_dir / MANIFEST_FILE) if MANIFEST_FILE in files else {}
    if limits is not None:
        check_fits(source_dir.name, config, limits)
    if not same_base:
        check_origin(source_dir.name, config, source_manifest, base)
    kept_fields = _select_kept(source_dir.name, source_manifest)
    adapter_id = new_adapter_id()
    partial = adapters_dir / f".partial-{adapter_id}"
    try:
        partial.mkdir(mode=0o755)
        for file in sorted(KNOWN_FILES & files.keys()):
            shutil.copyfile(files[file], partial / file, follow_symlinks=False)
        check_loadable(partial, base)  # the copy is what will be served, and the source may have changed meanwhile
        _write_manifest(partial, _manifest(partial, adapter_id, name, base, kept_fields))
        with lock_names(adapters_dir):  # of two concurrent imports under one name, the second is rejected here
            check_free(name, adapters_dir, base)
            partial.rename(adapters_dir / adapter_id)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync(adapters_dir)
    return read_adapter(adapters_dir / adapter_id)


def _make_name(base: BaseModel, organization: str, suffix: str) -> str:
    try:
        return fine_tuned_model_name(base.name, organization, suffix)
    except InvalidNameError as error:
        raise AdapterError(str(error)) from error


def _select_kept(source: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of the manifest that an adapter came with, whose files' hashes have been verified.

    Raises: AdapterError if it isn't valid JSON, which allows no NaN and no lone surrogates.
    """
    kept_fields = {key: manifest.get(key) for key in _KEPT_FROM_MANIFEST}
    for key, value in kept_fields.items():
        if value is not None and not isinstance(value, _KEPT_FROM_MANIFEST[key]):
            raise AdapterError(
                f"{source}: {key} in manifest.json must be of type {_KEPT_FROM_MANIFEST[key].__name__}. Or leave "
                "out manifest.json; then only the other files are checked."
            )
    try:
        size = len(json.dumps(kept_fields, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError) as error:
        raise AdapterError(
            f"{source}: manifest.json has a number or string that isn't valid JSON ({type(error).__name__}). Leave "
            "out manifest.json; then only the other files are checked."
        ) from error
    if size > MAX_KEPT_BYTES:
        raise AdapterError(
            f"{source}: manifest.json has {size} bytes of training details, more than {MAX_KEPT_BYTES}. Leave it out."
        )
    return kept_fields


def _manifest(path: Path, adapter_id: str, name: str, base: BaseModel, kept_fields: dict[str, Any]) -> dict[str, Any]:
    own: Manifest = {
        "manifest_version": MANIFEST_VERSION,
        "id": adapter_id,
        "name": name,
        "created_at": int(time.time()),
        "base_model": base.name,
        "base_model_sha256": base.sha256,
        "files": {
            file.name: {"sha256": file_sha256(file), "bytes": file.stat().st_size} for file in sorted(path.iterdir())
        },
    }
    return {**own, **kept_fields}


def _write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, and fsync everything in the directory."""
    (path / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    for file in path.iterdir():
        sync(file)
    sync(path)
