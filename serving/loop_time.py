"""A clock that goes only while the event loop does."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_TICK_S = 0.25
_MOST_S = 2 * _TICK_S
"""What passes between two ticks counts up to this: a loop is always a little late."""


class LoopTime:
    """Seconds in which the loop turned: one that something blocked has seen nothing of what happened meanwhile."""

    def __init__(self) -> None:
        self._passed_s = 0.0
        self._ticked_at = time.monotonic()

    def now(self) -> float:
        """Seconds since it was made, but for those in which the loop stood still."""
        return self._passed_s + min(time.monotonic() - self._ticked_at, _MOST_S)

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """It goes until the context is left; before and after that it stands."""
        self._ticked_at = time.monotonic()
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._passed_s, self._ticked_at = self.now(), time.monotonic()
