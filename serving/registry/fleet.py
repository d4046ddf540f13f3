"""All engines of one server: started in turn, stopped, restarted one after another so that requests only wait."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, runtime_checkable

from serving.engines.engine import AdapterHost, EngineLimits
from serving.engines.remote.engine import RemoteEngine
from serving.errors import EngineError, ServingError
from serving.registry.derived_limits import LimitSettings
from serving.registry.engine_status import EngineStatus, best_state, is_served, make_status
from serving.registry.pool import Pool, Replica
from serving.registry.registry import Registry

DRAIN_TIMEOUT_S = 60.0
"""Default for how long a restart waits for the requests in flight."""
_DRAIN_POLL_S = 0.05

logger = logging.getLogger(__name__)


class RestartRefusedError(EngineError):
    """An engine isn't restarted: it is remote, busy, or being restarted already. It goes on as before."""


@runtime_checkable
class Restartable(Protocol):
    """An engine that can be restarted with other limits, such as `VLLMProcess`."""

    async def restart(self, limits: EngineLimits | None = None) -> None:
        """Return once it takes requests again. Raises: EngineError; it then has its old limits, or is down."""


@runtime_checkable
class _CallsBackOnUp(Protocol):
    """An engine that calls back when it has come up, before it takes requests."""

    on_up: Callable[[AdapterHost], Awaitable[None]] | None


class Fleet:
    """The engines behind one registry. Its coroutines belong to the engines' event loop."""

    def __init__(self, registry: Registry, wanted: LimitSettings | None = None) -> None:
        """Have each engine's adapters restored whenever that engine comes up.

        wanted: the limits in the settings; by default all are derived from the adapters.
        """
        self._registry = registry
        self._wanted = wanted or LimitSettings()
        self._restarting: asyncio.Task[None] | None = None
        for replica in registry.replicas:
            if isinstance(replica.engine, _CallsBackOnUp) and self._pool_of(replica):
                replica.engine.on_up = partial(registry.restore_adapters, replica)

    @property
    def local(self) -> tuple[Replica, ...]:
        """The engines that we run. Start them in turn: two starts at once take longer than one after the other."""
        return tuple(replica for replica in self._registry.replicas if not isinstance(replica.engine, RemoteEngine))

    @property
    def remote(self) -> tuple[Replica, ...]:
        """The engines that someone else runs."""
        return tuple(replica for replica in self._registry.replicas if isinstance(replica.engine, RemoteEngine))

    async def start(self) -> None:
        """Start polling the remote engines; takes a few seconds if one doesn't answer."""
        await asyncio.gather(*(replica.engine.start() for replica in self.remote))

    async def stop(self) -> None:
        """Return once nothing is left of our engines, and the remote ones are no longer polled."""
        if self._restarting:
            self._restarting.cancel()
            await asyncio.wait({self._restarting})
        await asyncio.gather(*(replica.engine.stop() for replica in self._registry.replicas))

    def find(self, engine_id: str) -> Replica | None:
        """Return the engine of this id."""
        return next((replica for replica in self._registry.replicas if replica.id == engine_id), None)

    async def statuses(self) -> list[EngineStatus]:
        """Return the status of every engine, the remote ones last."""
        replicas = (*self.local, *self.remote)
        wanted = await asyncio.to_thread(lambda: [self.wanted_limits(replica) for replica in replicas])
        return [
            make_status(replica, self._pool_of(replica), limits)
            for replica, limits in zip(replicas, wanted, strict=True)
        ]

    def wanted_limits(self, replica: Replica) -> EngineLimits:
        """Return the limits that the engine would be started with now, by the settings and the adapters at hand."""
        limits, pool = replica.engine.limits, self._pool_of(replica)
        adapters = [*self._registry.adapters(), *self._registry.awaiting_gate()]
        rank, loras, cpu_loras = self._wanted.derive(
            [adapter for adapter in adapters if pool is None or self._registry.pool_of(adapter) is pool]
        )
        return replace(limits, max_lora_rank=rank, max_loras=loras, max_cpu_loras=cpu_loras)

    async def bases_down(self) -> dict[str, str]:
        """Return base model → state of its best engine, for each base that no engine answers for now."""
        pools = self._registry.pools
        up = await asyncio.gather(*(is_served(pool) for pool in pools))
        return {pool.base.name: best_state(pool) for pool, is_up in zip(pools, up, strict=True) if not is_up}

    def restart(
        self, replicas: Sequence[Replica], *, drain_timeout_s: float = DRAIN_TIMEOUT_S, force: bool = False
    ) -> asyncio.Task[None]:
        """Restart these engines, one after another, each with the limits that are wanted now.

        New requests go to other engines of the same base, or wait. Those in flight get `drain_timeout_s` to end;
        after that the restart is abandoned, or with `force` they are cut. The task goes on if nobody awaits it. It
        raises RestartRefusedError; EngineError when an engine didn't come up with its new limits.
        Raises: RestartRefusedError at once, for a remote engine, or while another restart is in progress.
        """
        foreign = [replica.id for replica in replicas if not isinstance(replica.engine, Restartable)]
        if foreign:
            raise RestartRefusedError(f"{foreign[0]} is a remote engine; restart it where it runs.")
        if self._restarting and not self._restarting.done():
            raise RestartRefusedError("Engines are already being restarted. GET /v1/engines shows the progress.")
        self._restarting = asyncio.create_task(self._restart_in_turn(replicas, drain_timeout_s, force))
        self._restarting.add_done_callback(_log_failure)
        return self._restarting

    async def _restart_in_turn(self, replicas: Sequence[Replica], drain_timeout_s: float, force: bool) -> None:
        for replica in replicas:
            replica.admits.clear()
            try:
                await _drain(replica, drain_timeout_s, force)
                limits = await asyncio.to_thread(self.wanted_limits, replica)
                logger.info("Restarting %s with %s", replica.id, _format_limits(limits))
                assert isinstance(replica.engine, Restartable)  # noqa: S101 (for the type checker)
                await replica.engine.restart(limits)
            finally:
                replica.admits.set()

    def _pool_of(self, replica: Replica) -> Pool | None:
        return next((pool for pool in self._registry.pools if replica in pool.replicas), None)


async def _drain(replica: Replica, timeout_s: float, force: bool) -> None:
    """Wait until no request uses the replica. Raises: RestartRefusedError."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while replica.in_flight:  # noqa: ASYNC110 (many tests of one condition are cheaper than an event a request)
                await asyncio.sleep(_DRAIN_POLL_S)
    if replica.in_flight and not force:
        raise RestartRefusedError(
            f"{replica.id} still has {replica.in_flight} requests in flight after {timeout_s:.0f} s and wasn't "
            "restarted. Wait longer with drain_timeout_s, or cancel them with force."
        )


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        level = logging.WARNING if isinstance(error, RestartRefusedError) else logging.ERROR
        logger.log(level, "The engine restart was aborted: %s", error, exc_info=not isinstance(error, ServingError))


def _format_limits(limits: EngineLimits) -> str:
    return f"max_lora_rank {limits.max_lora_rank}, max_loras {limits.max_loras}, max_cpu_loras {limits.max_cpu_loras}"
