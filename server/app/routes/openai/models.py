"""`/v1/models` as in OpenAI's API. https://platform.openai.com/docs/api-reference/models

Model ids contain `/` and `:`, raw or percent-encoded, hence the `:path` parameters.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from server.access import checkpoints
from server.access.callers import CallerDep
from server.access.keys import Caller
from server.aliases import changes
from server.aliases.view import AliasView
from server.app.services import Services, ServicesDep
from server.storage.tables import AliasRow
from server.versions import tuned_models
from server.wire.errors import BadRequest
from serving import Adapter

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models")
async def list_models(services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """List all models: base models and their additional names, tuned models, aliases, and remote engines' models."""
    bases = [_base_object(services, name) for name in services.registry.base_names]
    tuned = [
        _tuned_object(services, adapter)
        for adapter in await tuned_models.list_usable(services.registry, services.database, caller)
    ]
    remote = [_remote_object(name) for name in services.registry.remote_names]
    return {"object": "list", "data": [*bases, *tuned, *await _alias_objects(services, caller), *remote]}


@router.get("/models/{model:path}")
async def retrieve_model(model: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Get a model."""
    if model in services.registry.base_names:
        return _base_object(services, model)
    await checkpoints.check_access(services.database, services.registry, caller, model)
    if model in services.aliases.current:
        return _alias_object(services, await services.database.run(lambda session: changes.get(session, model)))
    if model in services.registry.remote_names:
        return _remote_object(model)
    return _tuned_object(services, services.registry.get(model))


@router.delete("/models/{model:path}")
async def delete_model(model: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Delete a tuned model and its files permanently. Requests in flight are finished first."""
    if model in services.registry.base_names:
        raise BadRequest(
            f"{model!r} is a base model; only tuned models can be deleted.", param="model", code="base_model"
        )
    await checkpoints.check_access(services.database, services.registry, caller, model)
    if model in services.aliases.current:
        raise BadRequest(
            f"{model!r} is an alias. To delete the alias but keep its model, use DELETE /v1/aliases/{model}.",
            param="model",
            code="model_is_an_alias",
        )
    if model in services.registry.remote_names:
        raise BadRequest(
            f"{model!r} is a remote engine's model; only tuned models can be deleted.",
            param="model",
            code="remote_model",
        )
    adapter = await tuned_models.remove(services.registry, services.database, services.aliases, model)
    return {"id": adapter.name, "object": "model", "deleted": True}


def _base_object(services: Services, name: str) -> dict[str, Any]:
    """Return the base model under one of its names; additional names have its main name as their parent."""
    pool = services.registry.base_pool(name)
    base = pool.base if pool else services.engine.base
    created = int((base.path / "config.json").stat().st_mtime)
    parent = None if name == base.name else base.name
    return _model_object(name, created, "base", parent)


def _remote_object(name: str) -> dict[str, Any]:
    """Return a remote engine's model; its age is unknown."""
    return _model_object(name, 0, "remote", None)


async def _alias_objects(services: Services, caller: Caller) -> list[dict[str, Any]]:
    """Return the models that this caller may use, by name."""
    rows = await services.database.run(lambda session: AliasView(session, services.registry, caller).list_all())
    return [_alias_object(services, row) for row in rows if row.name in services.aliases.current]


def _alias_object(services: Services, row: AliasRow) -> dict[str, Any]:
    """Return an alias as a model whose parent is its target."""
    return _model_object(row.name, row.created_at, services.settings.organization, row.model)


def _tuned_object(services: Services, adapter: Adapter) -> dict[str, Any]:
    return _model_object(adapter.name, adapter.created_at, services.settings.organization, adapter.base_model)


def _model_object(name: str, created: int, owned_by: str, parent: str | None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": owned_by, "parent": parent}
