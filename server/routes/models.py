"""`/v1/models` as OpenAI has it (https://platform.openai.com/docs/api-reference/models), and our `/v1/adapters`.

Ids of models hold `/` and `:`, and clients send them raw or percent-encoded, hence the `:path` parameters.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from server.errors import BadRequest, NotFound
from server.pages import list_page
from server.services import Services, ServicesDep
from serving import Adapter

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models")
def list_models(services: ServicesDep) -> dict[str, Any]:
    """Every model that a request may name: the base first, then the tuned ones, oldest first."""
    models = [_base_object(services), *(_tuned_object(services, adapter) for adapter in services.registry.adapters())]
    return {"object": "list", "data": models}


@router.get("/models/{model:path}")
def retrieve_model(model: str, services: ServicesDep) -> dict[str, Any]:
    """One model."""
    if model == services.engine.base.name:
        return _base_object(services)
    return _tuned_object(services, services.registry.get(model))


@router.delete("/models/{model:path}")
async def delete_model(model: str, services: ServicesDep) -> dict[str, Any]:
    """Delete a tuned model for good: unloaded, and its files gone. Answers in flight are finished first."""
    if model == services.engine.base.name:
        raise BadRequest(f"{model!r} is the base model; only tuned models can be deleted.", param="model")
    adapter = await services.registry.remove(model)
    return {"id": adapter.name, "object": "model", "deleted": True}


@router.get("/adapters")
def list_adapters(services: ServicesDep) -> dict[str, Any]:
    """The adapters of this base with what their manifests say; `broken` names what cannot be served, and why."""
    adapters = [_adapter_object(adapter) for adapter in services.registry.adapters()]
    return list_page(adapters, has_more=False) | {"broken": dict(services.registry.broken())}


@router.delete("/adapters/{adapter_id}")
async def delete_adapter(adapter_id: str, services: ServicesDep) -> dict[str, Any]:
    """Delete an adapter by its id."""
    if adapter_id not in {adapter.id for adapter in services.registry.adapters()}:
        raise NotFound(f"No adapter has the id {adapter_id!r}.", code="adapter_not_found", param="adapter_id")
    adapter = await services.registry.remove(adapter_id)
    return {"id": adapter.id, "object": "adapter", "deleted": True}


def _base_object(services: Services) -> dict[str, Any]:
    base = services.engine.base
    created = int((base.path / "config.json").stat().st_mtime)
    return {"id": base.name, "object": "model", "created": created, "owned_by": "base", "parent": None}


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
