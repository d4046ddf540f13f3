"""An adapter on disk: an immutable directory with a manifest.

Whether it can be served is determined in `check`, and whether it is served in `registry`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapter_format.files import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE
from adapter_format.manifest import MANIFEST_VERSION
from serving.errors import AdapterError

MAX_JSON_BYTES = 10_000_000
"""Bound on an adapter's JSON files; typical ones have a few kB, a tokenizer several MB."""


@dataclass(frozen=True)
class Adapter:
    """One version of a tuned model, as its manifest describes it."""

    id: str
    """`adapter-` and 16 characters; also the directory's name."""
    name: str
    """What clients put in `model`: `ft:{base}:{organization}:{suffix}:{8 characters}`."""
    path: Path
    """The directory, absolute."""
    base_model: str
    """Name of the base model it was trained on."""
    base_model_sha256: str | None
    """Hash of that base's weights; None if unknown."""
    r: int
    """Its LoRA rank."""
    created_at: int
    """Unix seconds."""
    manifest: dict[str, Any]
    """The whole manifest.json."""


def read_adapter(path: Path) -> Adapter:
    """Read the adapter in directory `path`. Raises: AdapterError when it isn't one or its manifest can't be read."""
    manifest = read_json(path / MANIFEST_FILE)
    config = read_json(path / CONFIG_FILE)
    version = manifest.get("manifest_version")
    if version != MANIFEST_VERSION:
        raise AdapterError(
            f"{path.name}: manifest_version is {version!r}, but this release supports {MANIFEST_VERSION}. Import "
            "the adapter again, or upgrade."
        )
    adapter = Adapter(
        id=_field(path, manifest, "id", str),
        name=_field(path, manifest, "name", str),
        path=path.absolute(),
        base_model=_field(path, manifest, "base_model", str),
        base_model_sha256=_field(path, manifest, "base_model_sha256", str, optional=True),
        r=_field(path, config, "r", int),
        created_at=_field(path, manifest, "created_at", int),
        manifest=manifest,
    )
    if adapter.id != path.name:
        raise AdapterError(
            f"{path.name}: the id in its manifest is {adapter.id!r}, but must match the directory's name. "
            "Import the adapter again."
        )
    return adapter


def scan_adapters(
    adapters_dir: Path, read: Callable[[Path], Adapter] = read_adapter
) -> tuple[list[Adapter], dict[str, str]]:
    """Return the adapters in `adapters_dir`, oldest first; and directory name → reason for what can't be read as one.

    Names that begin with a dot are being written or removed, and are skipped.

    read: reads one adapter; for callers that cache.
    """
    adapters: list[Adapter] = []
    broken: dict[str, str] = {}
    for path in sorted(adapters_dir.glob("[!.]*")):
        try:
            adapter = read(path)
        except AdapterError as error:
            broken[path.name] = str(error)
        else:
            adapters.append(adapter)
    return sorted(adapters, key=lambda adapter: (adapter.created_at, adapter.id)), broken


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file of an adapter. Raises: AdapterError."""
    where = f"{path.parent.name}/{path.name}"
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise AdapterError(
                f"{where} is larger than {MAX_JSON_BYTES} bytes, too large for this file. Save the adapter again."
            )
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdapterError(
            f"{where} is missing. An adapter is a directory with {CONFIG_FILE} and {WEIGHTS_FILE}, as PEFT saves it."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{where} can't be read as JSON ({error}). Save the adapter again.") from error
    if not isinstance(content, dict):
        raise AdapterError(f"{where} must be a JSON object. Save the adapter again.")
    return content


def _field(path: Path, content: dict[str, Any], key: str, kind: type, *, optional: bool = False) -> Any:
    value = content.get(key)
    if (optional and value is None) or type(value) is kind:
        return value
    raise AdapterError(
        f"{path.name}: {key} is {value!r}, but must be of type {kind.__name__}. Import the adapter again."
    )
