"""Tuned models as one caller sees them: listing and removing."""

from __future__ import annotations

from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from server.access import checkpoints as checkpoint_access
from server.access.keys import Caller
from server.aliases import changes
from server.aliases.cache import AliasCache
from server.jobs import states
from server.jobs.run import checkpoints
from server.storage.database import Database
from server.storage.tables import JobRow
from server.wire.errors import Conflict
from serving import Adapter, Registry


async def list_usable(registry: Registry, database: Database, caller: Caller) -> list[Adapter]:
    """Return the published models that this caller may use, oldest first."""
    return await _filter_visible(database, caller, await run_in_threadpool(registry.adapters))


async def list_unpublished(registry: Registry, database: Database, caller: Caller) -> list[Adapter]:
    """Return the unpublished models that this caller may use later, oldest first."""
    return await _filter_visible(database, caller, await run_in_threadpool(registry.awaiting_gate))


async def _filter_visible(database: Database, caller: Caller, adapters: list[Adapter]) -> list[Adapter]:
    names = [adapter.name for adapter in adapters]
    hidden = await database.run(lambda session: checkpoint_access.find_hidden(session, caller, names))
    return [adapter for adapter in adapters if adapter.name not in hidden]


async def remove(registry: Registry, database: Database, aliases: AliasCache, model: str) -> Adapter:
    """Remove the model with its checkpoint's row, if it has one, and return its adapter.

    Raises:
        Conflict: its job hasn't ended, or an alias stands for it.
    """
    name = registry.get(model).name
    await aliases.read()
    changes.refuse_in_use(aliases.current, name)
    making = select(JobRow.id).where(JobRow.wanted_model == name, JobRow.status.in_(states.NOT_ENDED))
    if job_id := await database.run(lambda session: session.scalar(making)):
        raise Conflict(
            f"{name} is the result of {job_id}, which is still finishing. Try again when it is done, or cancel "
            "the job.",
            code="model_in_use",
            param="model",
        )
    adapter = await registry.remove(model)
    if checkpoint_access.is_checkpoint(name):
        await database.run(lambda session: checkpoints.delete_rows([name], session))
    return adapter
