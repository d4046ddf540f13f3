"""Who makes a request, as FastAPI dependencies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from server.access.keys import ANYBODY, Caller
from server.wire.errors import Forbidden


def get_caller(request: Request) -> Caller:
    """Return who makes the request."""
    caller: Caller = getattr(request.state, "caller", ANYBODY)
    return caller


# All coroutines: FastAPI would run plain functions in a thread for each request.
async def _resolve_caller(request: Request) -> Caller:
    return get_caller(request)


async def _resolve_key_id(request: Request) -> str | None:
    return get_caller(request).key_id


async def _require_admin(request: Request) -> Caller:
    caller = get_caller(request)
    if not caller.is_admin:
        raise Forbidden(
            f"The API key {caller.key_id} isn't an admin key, and this endpoint requires one. The server's operator "
            "can create one with `tuneloop keys create --admin`.",
            code="admin_key_required",
        )
    return caller


CallerDep = Annotated[Caller, Depends(_resolve_caller)]
"""Who makes the request."""
KeyIdDep = Annotated[str | None, Depends(_resolve_key_id)]
"""The id of the API key that made the request; None on a keyless server."""
AdminDep = Annotated[Caller, Depends(_require_admin)]
"""Who makes the request; anyone but an admin gets a 403."""
