"""Adapters that clients upload: what the form asks for, where the archive is unpacked, and how it becomes a model.

Of what is refused nothing stays, and what a killed server had unpacked goes when the next one starts. Knows no routes.
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
class Wanted:
    """What the form's fields ask for."""

    name: str | None
    """What to call the model; None makes a name with `suffix`."""
    suffix: str
    base_model: str | None
    """The base that it is for; None finds out."""
    same_base: bool
    """Whether it was made for that base, whatever its config calls it."""


@contextmanager
def private_folder(settings: Settings) -> Iterator[Path]:
    """A new folder for our eyes only, gone with all that is in it when the context is left."""
    parent = _parent(settings)
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def remove_leftovers(settings: Settings) -> None:
    """Removes what a server that was killed had received and unpacked. Nothing may be under way."""
    shutil.rmtree(_parent(settings), ignore_errors=True)


def take_in(
    registry: Registry, settings: Settings, incoming: IncomingFile, folder: Path, fields: Mapping[str, str]
) -> Adapter:
    """The adapter in the uploaded archive, checked and in its place, but not yet tried on the engine. Blocks.

    Raises:
        APIError: the form, the archive or the adapter is refused.
        OSError: the disk is full.
    """
    wanted = _wanted(registry, settings, fields)
    incoming.flush()
    try:
        source = unpack_adapter(incoming.path, folder, max_bytes=settings.max_upload_bytes)
        pool = registry.base_pool(wanted.base_model) if wanted.base_model else None
        base = pool.base if pool else best_base(source, [pool.base for pool in registry.pools])
        return import_adapter(
            source,
            settings.adapters_dir,
            base,
            name=wanted.name,
            suffix=wanted.suffix,
            organization=settings.organization,
            same_base=wanted.same_base,
        )
    except AdapterError as error:
        raise _refusal(error) from error


async def publish(registry: Registry, adapter: Adapter) -> None:
    """Tries the adapter on the engine. One that needs it awake, or started for a larger rank, waits for that.

    Raises:
        APIError: it answers otherwise than it was trained to, or the engine refuses it; it is gone again.
    """
    try:
        await registry.publish(adapter.id)
    except AdapterMisfitError:
        pass
    except AdapterError as error:
        await _remove(registry, adapter)
        raise _refusal(error) from error
    except EngineError as error:
        logger.info("%s waits to be published: %s", adapter.id, error)


async def _remove(registry: Registry, adapter: Adapter) -> None:
    try:
        await registry.remove(adapter.id)
    except ServingError as error:  # it stays refused, and DELETE removes it
        logger.warning("%s was refused and can't be removed now: %s", adapter.id, error)


def _parent(settings: Settings) -> Path:
    return settings.data_dir / "incoming-adapters"


def _wanted(registry: Registry, settings: Settings, fields: Mapping[str, str]) -> Wanted:
    given = dict(fields)
    name, suffix = given.pop("name", "") or None, given.pop("suffix", "") or "imported"
    base_model, same_base = given.pop("base_model", "") or None, given.pop("same_base", "false").lower()
    if given:
        field = next(iter(given))[:100]
        raise BadRequest(f"The form has an unknown field {field!r}.", code="unknown_parameter", param=field)
    if same_base not in ("true", "false"):
        raise BadRequest("same_base must be true or false.", code="invalid_value", param="same_base")
    if base_model is not None and registry.base_pool(base_model) is None:
        raise BadRequest(
            f"{base_model[:200]!r} isn't a base model here. Give one of {', '.join(registry.base_names)}.",
            code="model_not_found",
            param="base_model",
        )
    _check_name(registry, name)
    _check_suffix(settings, suffix)
    return Wanted(name, suffix, base_model, same_base == "true")


def _check_name(registry: Registry, name: str | None) -> None:
    if name is None:
        return
    try:
        check_chosen_name(name)
        if name in registry.names():
            raise NameTakenError(f"The name {name!r} is another model's or an alias's. Choose another name.")
    except AdapterNameError as error:
        raise _refusal(error) from error


def _check_suffix(settings: Settings, suffix: str) -> None:
    try:
        fine_tuned_model_name("base", settings.organization, suffix)
    except InvalidNameError as error:
        raise BadRequest(str(error), code="invalid_value", param="suffix") from error


def _refusal(error: AdapterError) -> APIError:
    match error:
        case NameTakenError():
            return Conflict(str(error), code="name_taken", param="name")
        case AdapterNameError():
            return BadRequest(str(error), code="invalid_value", param="name")
        case ArchiveError():
            return BadRequest(str(error), code="invalid_archive", param="file")
    told = from_serving(error)
    told.param = "file"
    return told
