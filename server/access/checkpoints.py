"""Who may use a checkpoint: the project whose job made it, and the projects that were let in. An alias is there for
those who may use what it stands for.

The one place where that is decided. Knows no HTTP. A model that is no checkpoint costs no query: its name says so.
https://platform.openai.com/docs/api-reference/fine-tuning/list-permissions
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from sqlalchemy import ColumnElement, exists, or_, select, true
from sqlalchemy.orm import Session

from server.access.keys import Caller
from server.storage.database import Database
from server.storage.tables import CheckpointPermissionRow, JobCheckpointRow, JobRow
from serving import ModelNotFoundError, Registry

CHECKPOINT = re.compile(r":ckpt-step-\d+\Z")
_NAMED_IN_QUERY = 500
"""Names that a query may list; SQLite takes some thousand parameters."""


def is_checkpoint(model: str) -> bool:
    """Whether the name is one that a checkpoint has."""
    return CHECKPOINT.search(model) is not None


def hidden_among(
    session: Session, caller: Caller, names: Iterable[str], *, version_of: Callable[[str], str] = lambda name: name
) -> frozenset[str]:
    """Those of these names that aren't there for this caller: none on a keyless server.

    version_of: what an alias among them stands for; a name that is none stands for itself.
    A checkpoint that no row tells the project of is there for nobody.
    """
    if caller.key_id is None:
        return frozenset()
    versions = {name: version for name in names if is_checkpoint(version := version_of(name))}
    hidden = frozenset(versions.values()) - _among(session, versions.values(), usable_by(caller.project))
    return frozenset(name for name, version in versions.items() if version in hidden)


def foreign_among(session: Session, caller: Caller, names: Iterable[str]) -> frozenset[str]:
    """As `hidden_among`, but those that are gone are nobody's any more: for what tells of the past."""
    hidden = hidden_among(session, caller, names)
    return _among(session, hidden, true())


def _among(session: Session, names: Iterable[str], where: ColumnElement[bool]) -> frozenset[str]:
    """The checkpoints of these names for which the condition holds."""
    checkpoints = frozenset(names)
    if not checkpoints:
        return frozenset()
    query = select(JobCheckpointRow.model).where(where)
    if len(checkpoints) <= _NAMED_IN_QUERY:
        query = query.where(JobCheckpointRow.model.in_(checkpoints))
    return checkpoints & frozenset(session.scalars(query))


def usable_by(project: str) -> ColumnElement[bool]:
    """The condition of a checkpoint that keys of this project may use."""
    own = exists().where(JobRow.id == JobCheckpointRow.job_id, JobRow.project == project)
    permitted = exists().where(
        CheckpointPermissionRow.checkpoint == JobCheckpointRow.model, CheckpointPermissionRow.project_id == project
    )
    return or_(own, permitted)


async def check(database: Database, registry: Registry, caller: Caller, model: str) -> None:
    """Returns when the caller may use this model, by its name, an alias or its adapter's id.

    Raises:
        ModelNotFoundError: it is not there, or not for this caller: the two look the same.
        AdapterError: the adapter is known to be unfit.
    """
    version = registry.version_of(model)
    if caller.key_id is None or version in registry.base_names:
        return
    try:
        name = registry.get(version).name
    except ModelNotFoundError as error:
        if version in registry.remote_names:
            return
        unseen = await _hidden(database, registry, caller, (*error.available, model))
        raise _not_found(model, error.available, unseen, error.reason) from error
    if is_checkpoint(name) and name in await _hidden(database, registry, caller, [name]):
        available = registry.names()
        unseen = await _hidden(database, registry, caller, available)
        raise _not_found(model, available, unseen, None)


async def _hidden(database: Database, registry: Registry, caller: Caller, names: Iterable[str]) -> frozenset[str]:
    return await database.run(lambda session: hidden_among(session, caller, names, version_of=registry.version_of))


def _not_found(
    model: str, names: list[str] | tuple[str, ...], unseen: frozenset[str], reason: str | None
) -> ModelNotFoundError:
    # Why a hidden one is not served would tell that it is there.
    return ModelNotFoundError(
        model, [name for name in names if name not in unseen], None if model in unseen else reason
    )
