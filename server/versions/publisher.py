"""Publishes adapters that were put into the directory: loads them and runs the parity gate before they are requested.

Results of jobs and uploads are published where they are created; this finds what `tuneloop train` and `tuneloop
adapters add` put in place beside a running server.
"""

from __future__ import annotations

import asyncio
import logging
import time

from server.wire.background import BackgroundLoop
from serving import Adapter, AdapterError, Registry, ServingError

PAUSE_S = 1.0
RETRY_AFTER_S = 30.0
"""Pause after a temporary failure, such as an unavailable engine."""

logger = logging.getLogger(__name__)


class Publisher:
    """Publishes unpublished adapters, one after another."""

    def __init__(self, registry: Registry, *, pause_s: float = PAUSE_S, retry_after_s: float = RETRY_AFTER_S) -> None:
        self.registry, self.retry_after_s = registry, retry_after_s
        self._not_before: dict[str, float] = {}
        self._loop = BackgroundLoop(self._publish_waiting, "Can't publish adapters now", pause_s=pause_s)

    async def start(self) -> None:
        """Start looking for adapters."""
        self._loop.start()

    async def stop(self) -> None:
        """Stop, and return when no adapter is being published."""
        await self._loop.stop()

    async def _publish_waiting(self) -> None:
        for adapter in await asyncio.to_thread(self.registry.awaiting_gate):
            if self._not_before.get(adapter.name, 0.0) <= time.monotonic() and self._is_pool_up(adapter):
                self._not_before[adapter.name] = time.monotonic() + self.retry_after_s
                await self._publish(adapter)

    def _is_pool_up(self, adapter: Adapter) -> bool:
        return any(replica.is_up for replica in self.registry.pool_of(adapter).replicas)

    async def _publish(self, adapter: Adapter) -> None:
        try:
            await self.registry.publish(adapter.name)
        except AdapterError as error:  # the registry remembers refusals; one that doesn't fit now may fit later
            logger.warning("%s isn't published: %s", adapter.name, error)
        except ServingError as error:
            logger.warning("Can't publish %s now: %s", adapter.name, error)
        else:
            logger.info("%s is published", adapter.name)
