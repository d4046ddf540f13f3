"""Who makes a request, as routes ask for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from server.access.keys import ANYBODY, Caller
from server.wire.errors import Forbidden


def caller_of(request: Request) -> Caller:
    """Who makes the request."""
    caller: Caller = getattr(request.state, "caller", ANYBODY)
    return caller


# Coroutines all: FastAPI would run plain functions in a thread, for each request.
async def _caller(request: Request) -> Caller:
    return caller_of(request)


async def _key_id(request: Request) -> str | None:
    return caller_of(request).key_id


async def _admin(request: Request) -> Caller:
    caller = caller_of(request)
    if not caller.is_admin:
        raise Forbidden(
            f"The API key {caller.key_id} is no admin's, and this endpoint wants one. "
            "Whoever runs the server makes one with `tuneloop keys create --admin`.",
            code="admin_key_required",
        )
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]
"""Who makes the request."""
KeyIdDep = Annotated[str | None, Depends(_key_id)]
"""The id of the API key that made the request; None on a keyless server."""
AdminDep = Annotated[Caller, Depends(_admin)]
"""Who makes the request; anybody but an admin gets a 403."""
