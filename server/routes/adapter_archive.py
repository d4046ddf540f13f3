"""`/v1/adapters/{id}/archive`, ours: a tuned model to take away, in the form that `POST /v1/adapters` takes in."""

from __future__ import annotations

import re

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from server import tuned_models
from server.adapter_download import AdapterArchive
from server.errors import NotFound
from server.services import CallerDep, ServicesDep

router = APIRouter(prefix="/v1", tags=["adapters"])


@router.get("/adapters/{adapter_id}/archive", response_class=StreamingResponse)
async def download_adapter(adapter_id: str, services: ServicesDep, caller: CallerDep) -> StreamingResponse:
    """The adapter as a .tar.gz: what PEFT reads, and a manifest with how it was made."""
    there = [*await tuned_models.usable(services, caller), *await tuned_models.waiting(services, caller)]
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
    """`ft_base_org_suffix_8chars.tar.gz`: a name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", model)[:120].strip("._") + ".tar.gz"
