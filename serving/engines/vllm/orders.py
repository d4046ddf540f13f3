"""What others want done by a task of its own, one after the other. It refuses to know what that is."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Order:
    work: Callable[[], Awaitable[None]]
    done: asyncio.Future[None]


class Orders:
    """A queue of work: many give, one carries out."""

    def __init__(self, stopped: Callable[[], Exception]) -> None:
        """stopped: what whoever waits is told when nobody carries out orders any more."""
        self._stopped = stopped
        self._waiting: deque[_Order] = deque()
        self._given = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def give(self, work: Callable[[], Awaitable[None]]) -> None:
        """Returns when it is done, or raises what it raised. It is done even when the caller is cancelled."""
        order = _Order(work, asyncio.get_running_loop().create_future())
        self._waiting.append(order)
        self._given.set()
        await order.done

    async def given(self) -> None:
        """Returns when there is one."""
        while not self._waiting:
            self._given.clear()
            await self._given.wait()

    async def carry_out(self) -> None:
        """Does the oldest, and tells whoever gave it. Only a cancellation comes out of here."""
        order = self._waiting.popleft()
        try:
            await order.work()
        except asyncio.CancelledError:
            _fail(order, self._stopped())
            raise
        except Exception as error:  # noqa: BLE001 (it is the giver's, who gets it)
            _fail(order, error)
        else:
            if not order.done.done():
                order.done.set_result(None)

    def drop(self) -> None:
        """Tells all who wait that nothing will be done any more."""
        while self._waiting:
            _fail(self._waiting.popleft(), self._stopped())


def _fail(order: _Order, error: Exception) -> None:
    if order.done.done():
        logger.warning("What nobody waits for any more failed: %s", error)
    else:
        order.done.set_exception(error)
