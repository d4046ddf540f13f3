"""A snapshot of an engine, be it ours or remote."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from serving.engines.engine import EngineLimits, EngineState
from serving.engines.remote.engine import RemoteEngine
from serving.registry.pool import Pool, Replica


@dataclass(frozen=True)
class EngineStatus:
    """A snapshot of one engine."""

    id: str
    base_model: str | None
    """None for a remote engine that serves models of its own."""
    kind: str
    """`vllm`, which we run, or `remote`."""
    state: str
    """One of `EngineState`, or `draining`: up, but new requests wait because it is about to be restarted."""
    url: str | None
    """Of a remote engine; contains no key."""
    in_flight: int
    """Requests that use it now."""
    adapters_loaded: tuple[str, ...]
    """Least recently used first."""
    models: tuple[str, ...]
    """The models that a remote engine lists."""
    limits: EngineLimits | None
    """None for a remote engine, whose limits aren't known."""
    wanted_limits: EngineLimits | None
    """The limits that a restart would give it."""
    restarts: int
    started_at: float | None
    """Unix seconds; None while it isn't up."""
    start_seconds: float | None
    """How long its last start took; None for a remote one, or before the first."""
    last_trouble: str | None
    """Why it was down the last time."""


def make_status(replica: Replica, pool: Pool | None, wanted: EngineLimits) -> EngineStatus:
    """Return a snapshot of the replica; `pool` is the one that it belongs to, if any.

    wanted: the limits that a restart would give it.
    """
    engine = replica.engine
    is_remote = isinstance(engine, RemoteEngine)
    draining = engine.state is EngineState.READY and not replica.admits.is_set()
    return EngineStatus(
        id=replica.id,
        base_model=pool.base.name if pool else None,
        kind="remote" if is_remote else "vllm",
        state="draining" if draining else engine.state.value,
        url=getattr(engine, "url", None),
        in_flight=replica.in_flight,
        adapters_loaded=tuple(replica.loaded_names()),
        models=tuple(getattr(engine, "models", ())),
        limits=None if is_remote else engine.limits,
        wanted_limits=None if is_remote else wanted,
        restarts=getattr(engine, "restarts", 0),
        started_at=getattr(engine, "started_at", None),
        start_seconds=getattr(engine, "start_seconds", None),
        last_trouble=getattr(engine, "last_trouble", None),
    )


async def is_served(pool: Pool) -> bool:
    """Return whether one of the base's engines answers."""
    up = [replica.engine for replica in pool.replicas if replica.engine.state is EngineState.READY]
    return any(await asyncio.gather(*(engine.is_healthy() for engine in up)))


def best_state(pool: Pool) -> str:
    """Return the state of the base's best engine; `unhealthy`: up, but the health check fails."""
    states = {replica.engine.state for replica in pool.replicas}
    if EngineState.READY in states:
        return "unhealthy"
    return next(
        state.value for state in (EngineState.STARTING, EngineState.DEAD, EngineState.STOPPED) if state in states
    )
