"""`/v1/models` as OpenAI has it (https://platform.openai.com/docs/api-reference/models), and our `/v1/adapters`.

Ids of models hold `/` and `:`, and clients send them raw or percent-encoded, hence the `:path` parameters.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from server import checkpoint_access
from server.auth import Caller
from server.errors import BadRequest, Conflict, NotFound
from server.jobs import checkpoints, transitions
from server.pages import list_page
from server.services import CallerDep, Services, ServicesDep
from server.tables import JobRow
from serving import Adapter

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models")
async def list_models(services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Every model that a request may name: the base and its further names first, then the tuned ones, oldest first."""
    bases = [_base_object(services, name) for name in services.registry.base_names]
    tuned = [_tuned_object(services, adapter) for adapter in await _adapters_for(services, caller)]
    return {"object": "list", "data": [*bases, *tuned]}


@router.get("/models/{model:path}")
async def retrieve_model(model: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """One model."""
    if model in services.registry.base_names:
        return _base_object(services, model)
    await checkpoint_access.check(services.database, services.registry, caller, model)
    return _tuned_object(services, services.registry.get(model))


@router.delete("/models/{model:path}")
async def delete_model(model: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Delete a tuned model for good: unloaded, and its files gone. Answers in flight are finished first."""
    if model in services.registry.base_names:
        raise BadRequest(
            f"{model!r} is the base model; only tuned models can be deleted.", param="model", code="base_model"
        )
    await checkpoint_access.check(services.database, services.registry, caller, model)
    adapter = await _remove(services, model)
    return {"id": adapter.name, "object": "model", "deleted": True}


@router.get("/adapters")
async def list_adapters(services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """The adapters of this base with what their manifests say; `broken` names what cannot be served, and why."""
    adapters = [_adapter_object(adapter) for adapter in await _adapters_for(services, caller)]
    # What is broken can't be told apart by project, so only an admin is told of it.
    broken = dict(services.registry.broken()) if caller.is_admin else {}
    return list_page(adapters, has_more=False) | {"broken": broken}


@router.delete("/adapters/{adapter_id}")
async def delete_adapter(adapter_id: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Delete an adapter by its id."""
    if adapter_id not in {adapter.id for adapter in await _adapters_for(services, caller)}:
        raise NotFound(f"No adapter has the id {adapter_id!r}.", code="adapter_not_found", param="adapter_id")
    adapter = await _remove(services, adapter_id)
    return {"id": adapter.id, "object": "adapter", "deleted": True}


async def _remove(services: Services, model: str) -> Adapter:
    """The adapter that is gone now, and its checkpoint's row with it.

    Raises:
        Conflict: the job that makes it hasn't ended.
    """
    name = services.registry.get(model).name
    making = select(JobRow.id).where(JobRow.wanted_model == name, JobRow.status.in_(transitions.NOT_ENDED))
    if job_id := await services.database.run(lambda session: session.scalar(making)):
        raise Conflict(
            f"{name} is the result of {job_id}, which is just ending. Try again when it has, or cancel the job.",
            code="model_in_use",
            param="model",
        )
    adapter = await services.registry.remove(model)
    if checkpoint_access.is_checkpoint(name):
        await services.database.run(lambda session: checkpoints.forget([name], session))
    return adapter


async def _adapters_for(services: Services, caller: Caller) -> list[Adapter]:
    """Those that this caller may use, oldest first."""
    adapters = await run_in_threadpool(services.registry.adapters)
    names = [adapter.name for adapter in adapters]
    unseen = await services.database.run(lambda session: checkpoint_access.hidden_among(session, caller, names))
    return [adapter for adapter in adapters if adapter.name not in unseen]


def _base_object(services: Services, name: str) -> dict[str, Any]:
    """The base under one of its names; a further name has its own name as its parent."""
    base = services.engine.base
    created = int((base.path / "config.json").stat().st_mtime)
    parent = None if name == base.name else base.name
    return {"id": name, "object": "model", "created": created, "owned_by": "base", "parent": parent}


def _tuned_object(services: Services, adapter: Adapter) -> dict[str, Any]:
    return {
        "id": adapter.name,
        "object": "model",
        "created": adapter.created_at,
        "owned_by": services.settings.organization,
        "parent": adapter.base_model,
    }


def _adapter_object(adapter: Adapter) -> dict[str, Any]:
    manifest = adapter.manifest
    return {
        "id": adapter.id,
        "object": "adapter",
        "created_at": adapter.created_at,
        "model": adapter.name,
        "base_model": adapter.base_model,
        "base_model_sha256": adapter.base_model_sha256,
        "r": adapter.r,
        **{key: manifest.get(key) for key in ("training_file_sha256", "metrics", "versions")},
    }
