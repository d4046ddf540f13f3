"""What can be told of an engine now, whoever runs it. It refuses to change anything."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from serving.engines.engine import EngineLimits, EngineState
from serving.engines.remote.engine import RemoteEngine
from serving.registry.pool import Pool, Replica


@dataclass(frozen=True)
class EngineStatus:
    """What can be told of one engine now."""

    id: str
    base_model: str | None
    """None for an engine that serves models of its own."""
    kind: str
    """`vllm`, which we run, or `remote`."""
    state: str
    """Of `EngineState`, or `draining`: up, but new requests wait because it is about to be restarted."""
    url: str | None
    """Of a remote one; holds no key."""
    in_flight: int
    """Requests that it holds now."""
    adapters_loaded: tuple[str, ...]
    """The least recently used first."""
    models: tuple[str, ...]
    """What a remote engine lists."""
    limits: EngineLimits | None
    """None where they aren't known: those of a remote engine."""
    wanted_limits: EngineLimits | None
    """What a restart would give it."""
    restarts: int
    started_at: float | None
    """Unix seconds; None while it isn't up."""
    start_seconds: float | None
    """How long its last start took; None for a remote one, or before the first."""
    last_trouble: str | None
    """Why it was down the last time."""


def status_of(replica: Replica, pool: Pool | None, wanted: EngineLimits) -> EngineStatus:
    """The status of the replica, which belongs to this pool, if to any.

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
        adapters_loaded=tuple(replica.held()),
        models=tuple(getattr(engine, "models", ())),
        limits=None if is_remote else engine.limits,
        wanted_limits=None if is_remote else wanted,
        restarts=getattr(engine, "restarts", 0),
        started_at=getattr(engine, "started_at", None),
        start_seconds=getattr(engine, "start_seconds", None),
        last_trouble=getattr(engine, "last_trouble", None),
    )


async def is_served(pool: Pool) -> bool:
    """Whether one of the base's engines answers."""
    up = [replica.engine for replica in pool.replicas if replica.engine.state is EngineState.READY]
    return any(await asyncio.gather(*(engine.is_healthy() for engine in up)))


def best_state(pool: Pool) -> str:
    """How near to answering the base's engines are; `unhealthy`: up, but the health check fails."""
    states = {replica.engine.state for replica in pool.replicas}
    if EngineState.READY in states:
        return "unhealthy"
    return next(
        state.value for state in (EngineState.STARTING, EngineState.DEAD, EngineState.STOPPED) if state in states
    )
