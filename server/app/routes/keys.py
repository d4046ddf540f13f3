"""`/v1/keys`: manages API keys. For admins; on a keyless server, for anyone on this machine.

A key appears only in the response that creates it: not in the list, the database or a log.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from server.access import key_requests
from server.access.callers import AdminDep
from server.access.keys import APIKey, list_keys
from server.app.services import ServicesDep
from server.storage.list_pages import build_list_page
from server.storage.tables import DEFAULT_PROJECT
from server.wire.errors import BadRequest

router = APIRouter(prefix="/v1/keys", tags=["keys"])

NOW_REQUIRED = "Every request to this server now needs a key, sent as `Authorization: Bearer KEY`."


class CreateKey(BaseModel):
    """The body of `POST /v1/keys`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(default="default", description="Who or what will use the key.")
    project: str = Field(default=DEFAULT_PROJECT, description="The key's project: letters, digits, - and _.")
    admin: bool | None = Field(default=None, description="Whether it is an admin key. Default: only the first key is.")


@router.get("")
async def list_api_keys(
    services: ServicesDep,
    admin: AdminDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    order: Literal["asc", "desc"] = "asc",
) -> dict[str, Any]:
    """List the keys without their secrets, including revoked ones. `current` is the key of this request."""
    keys = await services.database.run(list_keys)
    shown = [_key_object(key, admin.key_id) for key in (keys if order == "asc" else keys[::-1])]
    page = shown[_after(shown, after) :]
    return build_list_page(page[:limit], has_more=len(page) > limit)


@router.post("", status_code=201)
async def create_api_key(
    services: ServicesDep, admin: AdminDep, response: Response, body: CreateKey | None = None
) -> dict[str, Any]:
    """Create a key; `key` is only shown once. `notice` says if requests now need a key."""
    asked = body or CreateKey()
    keyless = admin.key_id is None
    try:
        key, secret = await services.database.run(
            lambda session: key_requests.create(session, asked.name, asked.project, asked.admin, keyless=keyless)
        )
    finally:
        services.keys.invalidate()  # also where somebody else's was the first
    response.headers["cache-control"] = "no-store"
    return _key_object(key, admin.key_id) | {"key": secret, "notice": NOW_REQUIRED if keyless else None}


@router.delete("/{key_id}")
async def revoke_api_key(key_id: str, services: ServicesDep, admin: AdminDep, force: bool = False) -> dict[str, Any]:
    """Revoke a key: it stays in the list and is rejected from the next request on."""
    key = await services.database.run(lambda session: key_requests.revoke(session, key_id, force=force))
    services.keys.invalidate()
    return _key_object(key, admin.key_id) | {"deleted": True}


def _after(shown: list[dict[str, Any]], after: str | None) -> int:
    """Return the index of the first key after the one with the id `after`."""
    if after is None:
        return 0
    for place, key in enumerate(shown, start=1):
        if key["id"] == after:
            return place
    raise BadRequest(
        f"after={after[:100]!r} isn't a key's id. Pass the last id of the previous page.",
        code="invalid_cursor",
        param="after",
    )


def _key_object(key: APIKey, current: str | None) -> dict[str, Any]:
    return {
        "id": key.id,
        "object": "api_key",
        "created_at": key.created_at,
        "name": key.name,
        "redacted_key": f"{key.prefix}…",
        "project": key.project,
        "is_admin": key.is_admin,
        "revoked_at": key.revoked_at,
        "current": key.id == current,
    }
