"""`/v1/engines`: lists and restarts the engines. For admins.

This module has the paths and parameters; `serving/registry/fleet.py` drains and restarts engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from server.access.callers import AdminDep
from server.app.services import Services, ServicesDep
from server.storage.list_pages import build_list_page
from server.wire.errors import Conflict, NotFound, ServerError
from serving import EngineError, EngineUnavailableError, Replica
from serving.registry.engine_status import EngineStatus
from serving.registry.fleet import DRAIN_TIMEOUT_S, RestartRefusedError

router = APIRouter(prefix="/v1/engines", tags=["engines"])


class RestartRequest(BaseModel):
    """How to restart."""

    model_config = ConfigDict(extra="forbid")

    drain_timeout_s: float = Field(
        default=DRAIN_TIMEOUT_S, ge=0, le=3600, description="Seconds to wait for requests in flight."
    )
    force: bool = Field(
        default=False,
        description="Whether to cut requests still in flight then; otherwise the restart is called off.",
    )
    wait: bool = Field(
        default=True,
        description="Whether to respond when the restart is done; otherwise responds immediately with 202.",
    )


@router.get("")
async def list_engines(services: ServicesDep, admin: AdminDep) -> dict[str, Any]:
    """List the engines with their state, load and limits; remote engines come last."""
    return build_list_page(await _build_page(services), has_more=False)


@router.post("/restart")
async def restart_engines(services: ServicesDep, admin: AdminDep, asked: RestartRequest | None = None) -> Response:
    """Restart all local engines, one after another, with limits that fit all adapters. Requests wait."""
    return await _restart(services, services.fleet.local, asked or RestartRequest())


@router.post("/{engine_id}/restart")
async def restart_engine(
    engine_id: str, services: ServicesDep, admin: AdminDep, asked: RestartRequest | None = None
) -> Response:
    """Restart an engine with limits that fit all adapters of its base model. Requests go to other engines, or wait."""
    replica = services.fleet.find(engine_id)
    if replica is None:
        raise NotFound(
            f"No engine has the id {engine_id[:100]!r}. GET /v1/engines lists them.",
            code="engine_not_found",
            param="engine_id",
        )
    return await _restart(services, [replica], asked or RestartRequest())


async def _restart(services: Services, replicas: Sequence[Replica], asked: RestartRequest) -> Response:
    """Return the engines after or during their restart."""
    try:
        going_on = services.fleet.restart(replicas, drain_timeout_s=asked.drain_timeout_s, force=asked.force)
        if asked.wait:
            await asyncio.shield(going_on)  # it goes on when the caller leaves
    except RestartRefusedError as error:
        raise Conflict(str(error), code="engine_restart_refused") from error
    except EngineUnavailableError:
        raise  # a fine-tuning job has the accelerator: 503, with when to try again
    except EngineError as error:
        raise ServerError(str(error), code="engine_restart_failed", headers={"x-should-retry": "false"}) from error
    page = build_list_page(await _build_page(services, {replica.id for replica in replicas}), has_more=False)
    return JSONResponse(page, 200 if asked.wait else 202)


async def _build_page(services: Services, ids: set[str] | None = None) -> list[dict[str, Any]]:
    """Return the engines with these ids; default: all."""
    return [_engine_object(one) for one in await services.fleet.statuses() if ids is None or one.id in ids]


def _engine_object(status: EngineStatus) -> dict[str, Any]:
    started_at = None if status.started_at is None else int(status.started_at)
    return {"object": "engine", **asdict(status), "started_at": started_at}
