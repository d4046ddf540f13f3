"""Background work: done at the start, whenever it is woken, and after each pause."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

logger = logging.getLogger(__name__)


class BackgroundLoop:
    """One task that repeats a piece of work. Each round must find for itself what there is to do."""

    def __init__(
        self,
        work: Callable[[], Awaitable[None]],
        failure: str,
        *,
        pause_s: float,
        failure_pause_s: float | None = None,
        awake: asyncio.Event | None = None,
    ) -> None:
        """failure: what the log says when the work fails, such as "webhooks can't be sent now".

        failure_pause_s: the pause after a failure; default: `pause_s`.
        awake: the event that ends a pause; default: one of its own.
        """
        self._work, self._failure = work, failure
        self._pause_s = pause_s
        self._failure_pause_s = pause_s if failure_pause_s is None else failure_pause_s
        self._awake = awake or asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, *, after_pause: bool = False) -> None:
        """Start the task on the running event loop.

        after_pause: whether the work was done just now, so that it is next due after a pause.
        """
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._keep_working(after_pause))

    async def stop(self) -> None:
        """Cancel the work and return when it has ended."""
        task, self._task, self._loop = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def wake(self) -> None:
        """End the pause, or skip the next one. Callable from any thread; does nothing once stopped."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed just now
                self._loop.call_soon_threadsafe(self._awake.set)

    async def _keep_working(self, after_pause: bool) -> None:
        if after_pause:
            await self._wait(self._pause_s)
        while True:
            self._awake.clear()
            pause_s = self._pause_s
            try:
                await self._work()
            except SQLAlchemyError as error:  # the database is away: it comes back, and holds what is to do
                logger.warning("%s: %s", self._failure, error)
                pause_s = self._failure_pause_s
            except Exception:  # the outermost catcher: without it the task would end for good
                logger.exception("%s", self._failure)
                pause_s = self._failure_pause_s
            await self._wait(pause_s)

    async def _wait(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            # `wait_for` can lose a cancellation that arrives together with the wake-up (Python 3.11, gh-86296).
            async with asyncio.timeout(pause_s):
                await self._awake.wait()
