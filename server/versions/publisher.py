"""Publishes adapters that come into the directory by themselves: loaded and judged before anybody asks for them.

It refuses to know how they are judged. A job's result and an upload are published by whoever made them; what
`tuneloop train` or `tuneloop adapters add` put in place beside a running server is found here.
"""

from __future__ import annotations

import asyncio
import logging
import time

from server.wire.background import BackgroundLoop
from serving import Adapter, AdapterError, Registry, ServingError

PAUSE_S = 1.0
AGAIN_AFTER_S = 30.0
"""After a failure that may pass, such as an engine that is away."""

logger = logging.getLogger(__name__)


class Publisher:
    """Looks for adapters that wait for the gate, one after another."""

    def __init__(self, registry: Registry, *, pause_s: float = PAUSE_S, again_after_s: float = AGAIN_AFTER_S) -> None:
        self.registry, self.again_after_s = registry, again_after_s
        self._not_before: dict[str, float] = {}
        self._looking = BackgroundLoop(self._publish_waiting, "Adapters can't be published now", pause_s=pause_s)

    async def start(self) -> None:
        """Begins to look."""
        self._looking.start()

    async def stop(self) -> None:
        """Returns when nothing is being judged any more."""
        await self._looking.stop()

    async def _publish_waiting(self) -> None:
        for adapter in await asyncio.to_thread(self.registry.awaiting_gate):
            if self._not_before.get(adapter.name, 0.0) <= time.monotonic() and self._can_be_judged(adapter):
                self._not_before[adapter.name] = time.monotonic() + self.again_after_s
                await self._publish(adapter)

    def _can_be_judged(self, adapter: Adapter) -> bool:
        return any(replica.is_up for replica in self.registry.pool_of(adapter).replicas)

    async def _publish(self, adapter: Adapter) -> None:
        try:
            await self.registry.publish(adapter.name)
        except AdapterError as error:  # the registry remembers refusals; one that doesn't fit now may fit later
            logger.warning("%s isn't published: %s", adapter.name, error)
        except ServingError as error:
            logger.warning("%s can't be published now: %s", adapter.name, error)
        else:
            logger.info("%s is published", adapter.name)
