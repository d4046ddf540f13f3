"""The engines of one base model, which are replicas of each other, and the choice of one for the next request."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from serving.base_model import BaseModel
from serving.engines.engine import Engine, EngineState

MAX_IMBALANCE = 8
"""An engine that has the adapter is preferred until it has this many more requests in flight than the idlest: a load
costs about as much as a few short answers."""


@dataclass(eq=False)
class Replica:
    """One engine, the adapters loaded into it, and the requests that use it."""

    id: str
    """Unique among all engines, such as `engine-0`."""
    engine: Engine
    leases: Counter[str] = field(default_factory=Counter)
    """Model → requests that use it now."""
    loaded: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """Adapter → the engine's generation that loaded it; least recently used first."""
    maybe_loaded: set[str] = field(default_factory=set)
    """Adapters that the engine was asked to load and hasn't been seen to unload: a superset of those loaded."""
    admits: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared while the engine is drained for a restart: new requests wait."""

    def __post_init__(self) -> None:
        self.admits.set()

    @property
    def in_flight(self) -> int:
        """Requests that use this engine now."""
        return self.leases.total()

    @property
    def is_up(self) -> bool:
        """Whether a request could start now."""
        return self.engine.state is EngineState.READY and self.admits.is_set()

    def has_loaded(self, adapter: str) -> bool:
        """Return whether this adapter is loaded in the engine's current generation."""
        return self.loaded.get(adapter) == self.engine.generation

    def loaded_names(self) -> list[str]:
        """Return the loaded adapters, least recently used first."""
        return [name for name in self.loaded if self.has_loaded(name)]

    def mark_loaded(self, adapter: str) -> None:
        """Record that the adapter has been loaded."""
        self.maybe_loaded.add(adapter)
        self.loaded[adapter] = self.engine.generation
        self.loaded.move_to_end(adapter)

    def mark_used(self, adapter: str) -> None:
        """Record that the adapter was requested."""
        if adapter in self.loaded:
            self.loaded.move_to_end(adapter)


@dataclass(frozen=True)
class Pool:
    """One base model and the engines that serve it, at least one."""

    base: BaseModel
    replicas: tuple[Replica, ...]

    def choose(self, adapter: str | None = None) -> Replica:
        """Return the replica for the next request: the least busy, or one with the adapter that isn't much busier."""
        return choose(self.replicas, adapter)


def choose(replicas: Sequence[Replica], adapter: str | None = None) -> Replica:
    """Like `Pool.choose`, among any. One that is down is chosen only if all are: it knows how long to wait."""
    up = [replica for replica in replicas if replica.is_up]
    if not up:
        return _least_loaded(replicas)
    idlest = _least_loaded(up)
    holders = [replica for replica in up if adapter is not None and replica.has_loaded(adapter)]
    if not holders:
        return idlest
    holder = _least_loaded(holders)
    return holder if holder.in_flight <= idlest.in_flight + MAX_IMBALANCE else idlest


def pool_of(*engines: Engine) -> Pool:
    """Return a pool of these engines, which serve the same base, named `engine-0` and so on."""
    return Pool(engines[0].base, tuple(Replica(f"engine-{number}", engine) for number, engine in enumerate(engines)))


def _least_loaded(replicas: Collection[Replica]) -> Replica:
    return min(replicas, key=lambda replica: replica.in_flight)
