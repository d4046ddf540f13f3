"""Uploaded adapters: reads the form, unpacks the archive, and imports and publishes the adapter.

Nothing remains of a refused upload, and what a killed server had unpacked is removed at the next start.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapter_format.names import InvalidNameError, fine_tuned_model_name
from server.files.contents import IncomingFile
from server.settings import Settings
from server.wire.errors import APIError, BadRequest, Conflict, from_serving
from serving import Adapter, AdapterError, AdapterMisfitError, EngineError, Registry, ServingError, import_adapter
from serving.adapters.archive.member import ArchiveError
from serving.adapters.archive.unpack import unpack_adapter
from serving.adapters.names import AdapterNameError, NameTakenError, check_chosen_name
from serving.adapters.origin import best_base

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UploadFields:
    """The fields of the form."""

    name: str | None
    """The model's name; None generates one with `suffix`."""
    suffix: str
    base_model: str | None
    """The adapter's base; None: detect it."""
    same_base: bool
    """Whether it was made for that base, even if its config names another."""


@contextmanager
def private_folder(settings: Settings) -> Iterator[Path]:
    """Create a temporary folder, readable by this user only, that is removed when the context is left."""
    parent = _get_parent_folder(settings)
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def remove_leftovers(settings: Settings) -> None:
    """Remove what a killed server had received and unpacked. No upload may be in progress."""
    shutil.rmtree(_get_parent_folder(settings), ignore_errors=True)


def import_upload(
    registry: Registry, settings: Settings, incoming: IncomingFile, folder: Path, fields: Mapping[str, str]
) -> Adapter:
    """Check the adapter in the uploaded archive and put it in its place, unpublished; return it. Blocks.

    Raises:
        APIError: the form, the archive or the adapter is refused.
        OSError: the disk is full.
    """
    requested = _parse_fields(registry, settings, fields)
    incoming.flush()
    try:
        source = unpack_adapter(incoming.path, folder, max_bytes=settings.max_upload_bytes)
        pool = registry.base_pool(requested.base_model) if requested.base_model else None
        base = pool.base if pool else best_base(source, [pool.base for pool in registry.pools])
        return import_adapter(
            source,
            settings.adapters_dir,
            base,
            name=requested.name,
            suffix=requested.suffix,
            organization=settings.organization,
            same_base=requested.same_base,
        )
    except AdapterError as error:
        raise _build_error(error) from error


async def publish(registry: Registry, adapter: Adapter) -> None:
    """Publish the adapter. It stays unpublished if the engine is away, or must be restarted for a larger rank.

    Raises:
        APIError: it failed the parity gate, or the engine refuses it; it is removed again.
    """
    try:
        await registry.publish(adapter.id)
    except AdapterMisfitError:
        pass
    except AdapterError as error:
        await _remove(registry, adapter)
        raise _build_error(error) from error
    except EngineError as error:
        logger.info("%s isn't published yet: %s", adapter.id, error)


async def _remove(registry: Registry, adapter: Adapter) -> None:
    try:
        await registry.remove(adapter.id)
    except ServingError as error:  # it stays refused; DELETE can remove it
        logger.warning("%s was rejected and can't be removed now: %s", adapter.id, error)


def _get_parent_folder(settings: Settings) -> Path:
    return settings.data_dir / "incoming-adapters"


def _parse_fields(registry: Registry, settings: Settings, fields: Mapping[str, str]) -> UploadFields:
    remaining = dict(fields)
    name, suffix = remaining.pop("name", "") or None, remaining.pop("suffix", "") or "imported"
    base_model, same_base = remaining.pop("base_model", "") or None, remaining.pop("same_base", "false").lower()
    if remaining:
        field = next(iter(remaining))[:100]
        raise BadRequest(f"The form has an unknown field {field!r}. Remove it.", code="unknown_parameter", param=field)
    if same_base not in ("true", "false"):
        raise BadRequest("same_base must be true or false.", code="invalid_value", param="same_base")
    if base_model is not None and registry.base_pool(base_model) is None:
        raise BadRequest(
            f"{base_model[:200]!r} isn't a base model here. Use one of {', '.join(registry.base_names)}.",
            code="model_not_found",
            param="base_model",
        )
    _check_name(registry, name)
    _check_suffix(settings, suffix)
    return UploadFields(name, suffix, base_model, same_base == "true")


def _check_name(registry: Registry, name: str | None) -> None:
    if name is None:
        return
    try:
        check_chosen_name(name)
        if name in registry.names():
            raise NameTakenError(
                f"The name {name!r} is already used by another model or an alias. Choose another name."
            )
    except AdapterNameError as error:
        raise _build_error(error) from error


def _check_suffix(settings: Settings, suffix: str) -> None:
    try:
        fine_tuned_model_name("base", settings.organization, suffix)
    except InvalidNameError as error:
        raise BadRequest(str(error), code="invalid_value", param="suffix") from error


def _build_error(error: AdapterError) -> APIError:
    match error:
        case NameTakenError():
            return Conflict(str(error), code="name_taken", param="name")
        case AdapterNameError():
            return BadRequest(str(error), code="invalid_value", param="name")
        case ArchiveError():
            return BadRequest(str(error), code="invalid_archive", param="file")
    refusal = from_serving(error)
    refusal.param = "file"
    return refusal
