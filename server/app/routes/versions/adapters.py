"""`/v1/adapters`: versions of tuned models on disk. Adapters can be imported and downloaded as archives of the same
format.

An upload is unpacked in a separate folder, checked, copied into place, and tested on the engine.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from server.access.callers import CallerDep
from server.access.keys import Caller
from server.app.services import Services, ServicesDep
from server.files.contents import IncomingFile
from server.files.form import openapi_form, read_form
from server.storage.list_pages import build_list_page
from server.versions import tuned_models, upload
from server.versions.download import AdapterArchive
from server.wire.errors import NotFound
from serving import Adapter

FORM = openapi_form(
    ["file"],
    {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "A .tar.gz or .zip of an adapter saved with PEFT's save_pretrained.",
        },
        "name": {"type": "string", "description": "The model's name. Default: ft:… with `suffix`."},
        "suffix": {"type": "string", "default": "imported"},
        "base_model": {"type": "string", "description": "The adapter's base model, if several are served."},
        "same_base": {
            "type": "boolean",
            "default": False,
            "description": "The adapter was trained on this base model, whatever name adapter_config.json gives.",
        },
    },
)


router = APIRouter(prefix="/v1", tags=["adapters"])


@router.post("/adapters", status_code=201, openapi_extra=FORM)
async def create_adapter(request: Request, services: ServicesDep) -> dict[str, Any]:
    """Import a LoRA adapter that was trained elsewhere. It is served at once, or rejected with the reason."""
    with upload.private_folder(services.settings) as folder, IncomingFile(folder) as incoming:
        form = await read_form(request, "file", incoming, services.settings.max_file_bytes)
        adapter = await run_in_threadpool(
            upload.import_upload, services.registry, services.settings, incoming, folder, form.fields
        )
    await upload.publish(services.registry, adapter)
    waiting = {other.id for other in await run_in_threadpool(services.registry.awaiting_gate)}
    return _adapter_object(adapter, is_published=adapter.id not in waiting)


@router.get("/adapters")
async def list_adapters(services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """List the served adapters with their manifests; `broken` has those that can't be served, with the reason."""
    objects = await _objects(services, caller)
    # Broken adapters have no project, so only an admin sees them.
    broken = dict(services.registry.broken()) if caller.is_admin else {}
    return build_list_page(objects, has_more=False) | {"broken": broken}


@router.get("/adapters/{adapter_id}")
async def retrieve_adapter(adapter_id: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Get an adapter by its id."""
    for adapter in await _objects(services, caller):
        if adapter["id"] == adapter_id:
            return adapter
    raise _not_found(adapter_id)


@router.delete("/adapters/{adapter_id}")
async def delete_adapter(adapter_id: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Delete an adapter by its id."""
    if adapter_id not in {adapter["id"] for adapter in await _objects(services, caller)}:
        raise _not_found(adapter_id)
    adapter = await tuned_models.remove(services.registry, services.database, services.aliases, adapter_id)
    return {"id": adapter.id, "object": "adapter", "deleted": True}


def _not_found(adapter_id: str) -> NotFound:
    return NotFound(
        f"No adapter has the id {adapter_id[:200]!r}. GET /v1/adapters lists them.",
        code="adapter_not_found",
        param="adapter_id",
    )


async def _objects(services: Services, caller: Caller) -> list[dict[str, Any]]:
    """Return the adapters that the caller may use, then unpublished ones."""
    published = await tuned_models.list_usable(services.registry, services.database, caller)
    waiting = await tuned_models.list_unpublished(services.registry, services.database, caller)
    return [
        *(_adapter_object(adapter, is_published=True) for adapter in published),
        *(_adapter_object(adapter, is_published=False) for adapter in waiting),
    ]


def _adapter_object(adapter: Adapter, *, is_published: bool) -> dict[str, Any]:
    manifest = adapter.manifest
    return {
        "id": adapter.id,
        "object": "adapter",
        "created_at": adapter.created_at,
        "model": adapter.name,
        "base_model": adapter.base_model,
        "base_model_sha256": adapter.base_model_sha256,
        "r": adapter.r,
        "status": "published" if is_published else "waiting",
        **{key: manifest.get(key) for key in ("training_file_sha256", "metrics", "versions")},
    }


@router.get("/adapters/{adapter_id}/archive", response_class=StreamingResponse)
async def download_adapter(adapter_id: str, services: ServicesDep, caller: CallerDep) -> StreamingResponse:
    """Download the adapter as a .tar.gz: the files for PEFT, and a manifest with training details."""
    there = [
        *await tuned_models.list_usable(services.registry, services.database, caller),
        *await tuned_models.list_unpublished(services.registry, services.database, caller),
    ]
    for adapter in there:
        if adapter.id == adapter_id:
            try:
                archive = await run_in_threadpool(AdapterArchive, adapter)
            except FileNotFoundError:
                break
            return StreamingResponse(
                archive,
                media_type="application/gzip",
                headers={"content-disposition": f'attachment; filename="{_file_name(adapter.name)}"'},
            )
    raise NotFound(
        f"No adapter has the id {adapter_id[:200]!r}. GET /v1/adapters lists them.",
        code="adapter_not_found",
        param="adapter_id",
    )


def _file_name(model: str) -> str:
    """Return a file name that is valid on every file system, such as `ft_base_org_suffix_8chars.tar.gz`."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", model)[:120].strip("._") + ".tar.gz"
