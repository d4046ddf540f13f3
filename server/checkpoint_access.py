"""Who may use a checkpoint: the project whose job made it, and the projects that were let in.

The one place where that is decided. Knows no HTTP. A model that is no checkpoint costs no query: its name says so.
https://platform.openai.com/docs/api-reference/fine-tuning/list-permissions
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.orm import Session

from server.auth import Caller
from server.database import Database
from server.tables import CheckpointPermissionRow, JobCheckpointRow, JobRow
from serving import ModelNotFoundError, Registry

CHECKPOINT = re.compile(r":ckpt-step-\d+\Z")
_NAMED_IN_QUERY = 500
"""Names that a query may list; SQLite takes some thousand parameters."""


def is_checkpoint(model: str) -> bool:
    """Whether the name is one that a checkpoint has."""
    return CHECKPOINT.search(model) is not None


def hidden_among(session: Session, caller: Caller, names: Iterable[str]) -> frozenset[str]:
    """Those of these names that aren't there for this caller: none on a keyless server.

    A checkpoint that no row tells the project of is there for nobody.
    """
    checkpoints = frozenset(filter(is_checkpoint, names))
    if caller.key_id is None or not checkpoints:
        return frozenset()
    query = select(JobCheckpointRow.model).where(usable_by(caller.project))
    if len(checkpoints) <= _NAMED_IN_QUERY:
        query = query.where(JobCheckpointRow.model.in_(checkpoints))
    return checkpoints - frozenset(session.scalars(query))


def usable_by(project: str) -> ColumnElement[bool]:
    """The condition of a checkpoint that keys of this project may use."""
    own = exists().where(JobRow.id == JobCheckpointRow.job_id, JobRow.project == project)
    permitted = exists().where(
        CheckpointPermissionRow.checkpoint == JobCheckpointRow.model, CheckpointPermissionRow.project_id == project
    )
    return or_(own, permitted)


async def check(database: Database, registry: Registry, caller: Caller, model: str) -> None:
    """Returns when the caller may use this model, by its name or its adapter's id.

    Raises:
        ModelNotFoundError: it is not there, or not for this caller: the two look the same.
        AdapterError: the adapter is known to be unfit.
    """
    if caller.key_id is None or model in registry.base_names:
        return
    try:
        name = registry.get(model).name
    except ModelNotFoundError as error:
        named = (*error.available, model)
        unseen = await database.run(lambda session: hidden_among(session, caller, named))
        raise _not_found(model, error.available, unseen, error.reason) from error
    if is_checkpoint(name) and name in await database.run(lambda session: hidden_among(session, caller, [name])):
        available = registry.names()
        unseen = await database.run(lambda session: hidden_among(session, caller, available))
        raise _not_found(model, available, unseen, None)


def _not_found(
    model: str, names: list[str] | tuple[str, ...], unseen: frozenset[str], reason: str | None
) -> ModelNotFoundError:
    # Why a hidden one is not served would tell that it is there.
    return ModelNotFoundError(
        model, [name for name in names if name not in unseen], None if model in unseen else reason
    )
