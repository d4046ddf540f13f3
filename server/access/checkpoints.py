"""Who may use a checkpoint: the project whose job made it, and projects with a permission. An alias is visible to those
who may use the model it stands for.

This is the only place that decides it. A model that isn't a checkpoint, as its name shows, costs no query.
https://platform.openai.com/docs/api-reference/fine-tuning/list-permissions
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import ColumnElement, exists, or_, select, true
from sqlalchemy.orm import Session

from server.access.keys import Caller
from server.storage.database import Database
from server.storage.tables import CheckpointPermissionRow, JobCheckpointRow, JobRow
from server.wire.errors import NotFound
from serving import ModelNotFoundError, Registry

CHECKPOINT = re.compile(r":ckpt-step-\d+\Z")
_MAX_QUERY_NAMES = 500
"""Most names in one query; SQLite takes a few thousand parameters."""


def is_checkpoint(model: str) -> bool:
    """Return whether the name is that of a checkpoint."""
    return CHECKPOINT.search(model) is not None


def find_hidden(
    session: Session, caller: Caller, names: Iterable[str], *, version_of: Callable[[str], str] = lambda name: name
) -> frozenset[str]:
    """Return those of the names that are hidden from this caller: none on a keyless server.

    version_of: resolves aliases; any other name stands for itself.
    A checkpoint without a row, and so without a project, is hidden from everyone.
    """
    if caller.key_id is None:
        return frozenset()
    versions = {name: version for name in names if is_checkpoint(version := version_of(name))}
    hidden = frozenset(versions.values()) - _filter_checkpoints(
        session, versions.values(), is_usable_by(caller.project)
    )
    return frozenset(name for name, version in versions.items() if version in hidden)


def find_foreign(session: Session, caller: Caller, names: Iterable[str]) -> frozenset[str]:
    """Like `find_hidden`, but without checkpoints that no longer exist: for lists of past events."""
    hidden = find_hidden(session, caller, names)
    return _filter_checkpoints(session, hidden, true())


def _filter_checkpoints(session: Session, names: Iterable[str], where: ColumnElement[bool]) -> frozenset[str]:
    """Return the checkpoints of these names that fulfil the condition."""
    checkpoints = frozenset(names)
    if not checkpoints:
        return frozenset()
    query = select(JobCheckpointRow.model).where(where)
    if len(checkpoints) <= _MAX_QUERY_NAMES:
        query = query.where(JobCheckpointRow.model.in_(checkpoints))
    return checkpoints & frozenset(session.scalars(query))


def is_usable_by(project: str) -> ColumnElement[bool]:
    """Return the condition for checkpoints that keys of this project may use."""
    own = exists().where(JobRow.id == JobCheckpointRow.job_id, JobRow.project == project)
    permitted = exists().where(
        CheckpointPermissionRow.checkpoint == JobCheckpointRow.model, CheckpointPermissionRow.project_id == project
    )
    return or_(own, permitted)


async def check_access(database: Database, registry: Registry, caller: Caller, model: str) -> None:
    """Check that the caller may use this model, given by its name, an alias or its adapter's id.

    Raises:
        ModelNotFoundError: it doesn't exist, or is hidden from this caller: the two look the same.
        AdapterError: the adapter is known to be unservable.
    """
    version = registry.version_of(model)
    if caller.key_id is None or version in registry.base_names:
        return
    try:
        name = registry.get(version).name
    except ModelNotFoundError as error:
        if version in registry.remote_names:
            return
        hidden = await _fetch_hidden(database, registry, caller, (*error.available, model))
        raise _not_found_error(model, error.available, hidden, error.reason) from error
    if is_checkpoint(name) and name in await _fetch_hidden(database, registry, caller, [name]):
        available = registry.names()
        hidden = await _fetch_hidden(database, registry, caller, available)
        raise _not_found_error(model, available, hidden, None)


async def refuse_unknown(
    database: Database, registry: Registry, caller: Caller, models: Sequence[str], *, param: str = "models"
) -> None:
    """Check that this caller may use all of these models.

    Raises:
        NotFound: one doesn't exist, or is hidden from this caller: the two look the same.
    """
    names = await list_visible_names(database, registry, caller)
    for model in models:
        if model not in names:
            raise NotFound(
                f"The model {model[:200]!r} does not exist here. GET /v1/models lists the models.",
                code="model_not_found",
                param=param,
            )


async def list_visible_names(database: Database, registry: Registry, caller: Caller) -> set[str]:
    """Return every model name that this caller can use."""
    names = registry.names()
    return set(names) - await _fetch_hidden(database, registry, caller, names)


async def _fetch_hidden(database: Database, registry: Registry, caller: Caller, names: Iterable[str]) -> frozenset[str]:
    return await database.run(lambda session: find_hidden(session, caller, names, version_of=registry.version_of))


def _not_found_error(
    model: str, names: list[str] | tuple[str, ...], hidden: frozenset[str], reason: str | None
) -> ModelNotFoundError:
    # The reason why a hidden model isn't served would reveal that it exists.
    return ModelNotFoundError(
        model, [name for name in names if name not in hidden], None if model in hidden else reason
    )
