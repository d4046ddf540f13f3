"""`/v1/aliases`: stable names for models, such as `support`, that can be moved to another version during operation.

A change takes effect once it is stored: requests after the response to a PUT get the new version, and requests in
flight finish with the one they started with. Names may contain `/` and `:`, hence the `:path` parameters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from server.access import checkpoints
from server.access.callers import CallerDep, KeyIdDep
from server.access.keys import Caller
from server.aliases import changes as aliases
from server.aliases.view import AliasView
from server.app.services import Services, ServicesDep
from server.storage.list_pages import build_list_page
from server.wire.errors import BadRequest, Conflict, ServiceUnavailable
from serving import EngineState
from serving.adapters.names import taken_names

router = APIRouter(prefix="/v1", tags=["aliases"])

ALIAS = "/aliases/{name:path}"
T = TypeVar("T")


class PromoteAlias(BaseModel):
    """The body of `PUT /v1/aliases/{name}`."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, description="The target: a tuned, base or remote model.")


class RollBackAlias(BaseModel):
    """The optional body of `POST /v1/aliases/{name}/rollback`."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None, min_length=1, description="An earlier model of the alias. Default: the previous one."
    )


@router.get("/aliases")
async def list_aliases(services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """List the aliases by name."""
    return build_list_page(
        await _run_view(services, caller, lambda view: view.build_objects(view.list_all())), has_more=False
    )


@router.get(ALIAS + "/history")
async def list_alias_history(
    name: str,
    services: ServicesDep,
    caller: CallerDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List the alias's changes, newest first; also works for a deleted alias."""
    aliases.check_name(name)
    changes, has_more = await _run_view(
        services, caller, lambda view: view.list_history(name, after=after, limit=limit)
    )
    return build_list_page(changes, has_more=has_more)


@router.get(ALIAS)
async def retrieve_alias(name: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Get an alias."""
    return await _run_view(services, caller, lambda view: view.build_objects([view.get(name)])[0])


@router.put(ALIAS)
async def promote_alias(
    name: str, body: PromoteAlias, services: ServicesDep, caller: CallerDep, key_id: KeyIdDep, response: Response
) -> dict[str, Any]:
    """Point the alias to a model, which is loaded first. Returns 201 if the alias is new."""
    aliases.check_name(name)
    model = await _resolve_target(services, caller, body.model)
    async with services.aliases.lock(name):
        await _run_view(services, caller, lambda view: view.refuse_foreign(name))
        if name not in services.aliases.current:
            await run_in_threadpool(_refuse_taken, services, name)
            response.status_code = 201
        async with _load_model(services, model):
            row = await services.aliases.commit(lambda session: aliases.promote(session, name, model, key_id))
    return await _run_view(services, caller, lambda view: view.build_objects([row])[0])


@router.post(ALIAS + "/rollback")
async def roll_back_alias(
    name: str, services: ServicesDep, caller: CallerDep, key_id: KeyIdDep, body: RollBackAlias | None = None
) -> dict[str, Any]:
    """Point the alias back to its previous model, or to another one from its history; `skipped` has models that no
    longer exist."""
    requested = body.model if body else None
    async with services.aliases.lock(name):
        row, model, gone = await _run_view(services, caller, lambda view: view.find_rollback_target(name, requested))
        if model != row.model:
            trail = row.trail
            await checkpoints.check_access(services.database, services.registry, caller, model)
            async with _load_model(services, model):
                row = await services.aliases.commit(
                    lambda session: aliases.roll_back(session, name, model, key_id, expected_trail=trail)
                )
    return await _run_view(services, caller, lambda view: view.build_objects([row])[0]) | {"skipped": gone}


@router.delete(ALIAS)
async def delete_alias(name: str, services: ServicesDep, caller: CallerDep, key_id: KeyIdDep) -> dict[str, Any]:
    """Delete the alias. Its model and its history are kept."""
    async with services.aliases.lock(name):
        await _run_view(services, caller, lambda view: view.get(name))
        await services.aliases.commit(lambda session: aliases.delete(session, name, key_id))
    return {"id": name, "object": "alias", "deleted": True}


async def _run_view(services: Services, caller: Caller, query: Callable[[AliasView], T]) -> T:
    return await services.database.run(lambda session: query(AliasView(session, services.registry, caller)))


@asynccontextmanager
async def _load_model(services: Services, model: str) -> AsyncIterator[None]:
    """Keep the model loaded and prevent its removal, so that callers of the alias don't wait for it.

    Raises:
        ServingError: it can't be loaded, fails the parity gate, or is being removed.
        ServiceUnavailable: its engine is unavailable.
    """
    async with services.registry.lease(model) as lease:
        if lease.engine.state is not EngineState.READY:
            raise ServiceUnavailable(
                "The engine is unavailable, so the alias wasn't changed. Try again when the engine is ready."
            )
        if model not in (*services.registry.base_names, *services.registry.remote_names):
            services.registry.get(model)
        yield


async def _resolve_target(services: Services, caller: Caller, model: str) -> str:
    """Return the name under which the model is served.

    Raises:
        ModelNotFoundError: it doesn't exist for this caller.
        BadRequest: it is itself an alias.
    """
    registry = services.registry
    await checkpoints.check_access(services.database, registry, caller, model)
    if registry.version_of(model) != model:
        raise BadRequest(
            f"{model!r} is an alias of {registry.version_of(model)}. Use the model's own name.",
            code="alias_of_alias",
            param="model",
        )
    return model if model in (*registry.base_names, *registry.remote_names) else registry.get(model).name


def _refuse_taken(services: Services, name: str) -> None:
    """Raise Conflict if the name of a new alias is, or was, used for something else."""
    registry, adapters_dir = services.registry, services.settings.adapters_dir
    taken = taken_names(adapters_dir, services.engine.base).union(registry.base_names, registry.remote_names)
    if name in taken:
        raise Conflict(
            f"The name {name!r} belongs to a model, possibly a deleted one, and an alias needs a unique name. "
            "Choose another name.",
            code="alias_name_taken",
            param="name",
        )
