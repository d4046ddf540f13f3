"""Work that ends when its caller leaves."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import NoReturn, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from serving.engines.racing import first_of

T = TypeVar("T")


async def until_left(receive: Receive) -> None:
    """Returns once the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_left(request: Request, work: Coroutine[None, None, T]) -> T:
    """What `work`, a coroutine, returns. When the caller leaves first, it is cancelled.

    Raises:
        ClientDisconnect: the caller left; nobody reads what is answered.
    """
    return await first_of(work, _left(request))


async def _left(request: Request) -> NoReturn:
    await until_left(request.receive)
    raise ClientDisconnect
