"""Who may ask the engine now: lets callers in while it is up, has them wait while it comes back, says why not.

It counts those inside. It refuses to know what an engine is.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from serving.errors import EngineUnavailableError


@dataclass(frozen=True)
class Refusal:
    """Why nobody is let in, as of now."""

    message: str
    """The reason, and what to do."""
    retry_after_s: float
    """When asking again may help, in seconds."""
    may_pass: bool = True
    """Whether waiting at the door for a moment may help."""


class Admission:
    """The door before one engine. It is closed at first."""

    def __init__(self, refusal: Callable[[], Refusal]) -> None:
        """refusal: why it is closed; asked each time that somebody is turned away."""
        self._refusal = refusal
        self._is_open = False
        self._inside = 0
        self._changed = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """Requests that were let in and aren't answered to their end."""
        return self._inside

    def open(self) -> None:
        """Lets everybody in."""
        self._is_open = True
        self._tell()

    def close(self) -> None:
        """Lets nobody in; those inside go on."""
        self._is_open = False
        self._tell()

    @asynccontextmanager
    async def admitted(self, wait_s: float) -> AsyncIterator[None]:
        """Inside from now until the context is left.

        wait_s: how long to wait at a closed door, where waiting may help.
        Raises: EngineUnavailableError when it stays closed.
        """
        if not self._is_open:
            await self._wait_at_the_door(wait_s)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._tell()

    async def closed(self) -> None:
        """Returns when nobody is let in."""
        while self._is_open:
            await self._changed.wait()

    async def drained(self, timeout_s: float) -> bool:
        """Whether nobody is inside any more, waited for up to `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._inside:
                    await self._changed.wait()
        return not self._inside

    async def _wait_at_the_door(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while not self._is_open:
            refusal, left_s = self._refusal(), deadline - time.monotonic()
            if left_s <= 0 or not refusal.may_pass:
                raise EngineUnavailableError(refusal.message, refusal.retry_after_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):  # `wait_for` can lose a cancellation (gh-86296)
                    await self._changed.wait()

    def _tell(self) -> None:
        """Wakes all who wait; who comes later waits for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()
