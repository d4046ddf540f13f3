"""Admission control of one engine: lets requests in while it is up, makes them wait while it comes back, else refuses.

It also counts the requests in flight.
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
    """Why requests are refused at the moment."""

    message: str
    """The reason, and what to do."""
    retry_after_s: float
    """When to retry, in seconds."""
    worth_waiting: bool = True
    """Whether it makes sense to wait for a moment instead of failing at once."""


class Admission:
    """Admission control of one engine. Closed at first."""

    def __init__(self, refusal: Callable[[], Refusal]) -> None:
        """refusal: returns why it is closed; called for each request that is refused."""
        self._refusal = refusal
        self._is_open = False
        self._in_flight = 0
        self._changed = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """Requests that were let in and are not fully answered yet."""
        return self._in_flight

    def open(self) -> None:
        """Let requests in."""
        self._is_open = True
        self._notify()

    def close(self) -> None:
        """Let no more requests in; those in flight go on."""
        self._is_open = False
        self._notify()

    @asynccontextmanager
    async def admit(self, wait_s: float) -> AsyncIterator[None]:
        """Count the caller as in flight until the context is left.

        wait_s: how long to wait while closed, if waiting may help.
        Raises: EngineUnavailableError when it stays closed.
        """
        if not self._is_open:
            await self._wait_until_open(wait_s)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._notify()

    async def wait_until_closed(self) -> None:
        """Wait until it is closed."""
        while self._is_open:
            await self._changed.wait()

    async def drain(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for the requests in flight; return whether none is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._in_flight:
                    await self._changed.wait()
        return not self._in_flight

    async def _wait_until_open(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while not self._is_open:
            refusal, left_s = self._refusal(), deadline - time.monotonic()
            if left_s <= 0 or not refusal.worth_waiting:
                raise EngineUnavailableError(refusal.message, refusal.retry_after_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):  # `wait_for` can lose a cancellation (gh-86296)
                    await self._changed.wait()

    def _notify(self) -> None:
        """Wake all waiters; those who come later wait for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()
