"""Who may use a checkpoint: the project whose job made it, and the projects that were let in.

The one place where that is decided. Knows no HTTP. A model that is no checkpoint costs no query: its name says so.
https://platform.openai.com/docs/api-reference/fine-tuning/list-permissions
"""

from __future__ import annotations

import re

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session

from server.auth import Caller
from server.database import Database
from server.tables import CheckpointPermissionRow, JobCheckpointRow, JobRow
from serving import ModelNotFoundError, Registry

CHECKPOINT = re.compile(r":ckpt-step-\d+\Z")


def is_checkpoint(model: str) -> bool:
    """Whether the name is one that a checkpoint has."""
    return CHECKPOINT.search(model) is not None


def hidden(session: Session, caller: Caller) -> frozenset[str]:
    """The checkpoints that aren't there for this caller; none on a keyless server."""
    if caller.key_id is None:
        return frozenset()
    return frozenset(session.scalars(_hidden(caller.project)))


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
        unseen = await database.run(lambda session: hidden(session, caller))
        raise _not_found(model, error.available, unseen, error.reason) from error
    if is_checkpoint(name):
        unseen = await database.run(lambda session: hidden(session, caller))
        if name in unseen:
            raise _not_found(model, registry.names(), unseen, None)


def _not_found(
    model: str, names: list[str] | tuple[str, ...], unseen: frozenset[str], reason: str | None
) -> ModelNotFoundError:
    # Why a hidden one is not served would tell that it is there.
    return ModelNotFoundError(
        model, [name for name in names if name not in unseen], None if model in unseen else reason
    )


def _hidden(project: str) -> Select[str]:
    permitted = exists().where(
        CheckpointPermissionRow.checkpoint == JobCheckpointRow.model, CheckpointPermissionRow.project_id == project
    )
    query = select(JobCheckpointRow.model).join(JobRow, JobRow.id == JobCheckpointRow.job_id)
    return query.where(JobRow.project != project, ~permitted)
