"""Work that is cancelled when the client disconnects."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import NoReturn, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from serving.engines.racing import first_of

T = TypeVar("T")


async def wait_for_disconnect(receive: Receive) -> None:
    """Return once the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def run_until_disconnect(request: Request, work: Coroutine[None, None, T]) -> T:
    """Return the result of the coroutine `work`, which is cancelled if the client disconnects first.

    Raises:
        ClientDisconnect: the client disconnected, so nobody reads the response.
    """
    return await first_of(work, _raise_on_disconnect(request))


async def _raise_on_disconnect(request: Request) -> NoReturn:
    await wait_for_disconnect(request.receive)
    raise ClientDisconnect
