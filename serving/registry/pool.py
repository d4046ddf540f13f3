"""The engines of one base model: replicas of each other, and which of them gets the next request.

It refuses to know adapters' files and how an engine runs.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from serving.base_model import BaseModel
from serving.engines.engine import Engine, EngineState

SPREAD = 8
"""An engine that has the adapter is preferred until it has so many more requests in flight than the idlest: one load
costs about as much as a few short answers."""


@dataclass(eq=False)
class Replica:
    """One engine, and what it has been told and given to do."""

    id: str
    """Unique among all engines, such as `engine-0`."""
    engine: Engine
    leases: Counter[str] = field(default_factory=Counter)
    """Model → requests that hold it now."""
    loaded: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """Adapter → the engine's generation that was told of it; the least recently used first."""
    may_know: set[str] = field(default_factory=set)
    """Adapters that the engine was asked to load and wasn't seen to unload: a superset of those that it knows."""
    admits: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared while the engine is drained for a restart: new requests wait."""

    def __post_init__(self) -> None:
        self.admits.set()

    @property
    def in_flight(self) -> int:
        """Requests that hold this engine now."""
        return self.leases.total()

    @property
    def is_up(self) -> bool:
        """Whether a request could begin now."""
        return self.engine.state is EngineState.READY and self.admits.is_set()

    def holds(self, adapter: str) -> bool:
        """Whether the engine, as it runs now, knows this adapter."""
        return self.loaded.get(adapter) == self.engine.generation

    def held(self) -> list[str]:
        """The adapters that the engine knows, the least recently used first."""
        return [name for name in self.loaded if self.holds(name)]

    def told(self, adapter: str) -> None:
        """Notes that the engine knows this adapter now."""
        self.may_know.add(adapter)
        self.loaded[adapter] = self.engine.generation
        self.loaded.move_to_end(adapter)

    def used(self, adapter: str) -> None:
        """Notes that the adapter was asked for."""
        if adapter in self.loaded:
            self.loaded.move_to_end(adapter)


@dataclass(frozen=True)
class Pool:
    """One base model and the engines that serve it, at least one."""

    base: BaseModel
    replicas: tuple[Replica, ...]

    def choose(self, adapter: str | None = None) -> Replica:
        """The replica for the next request: the least loaded, or one that has the adapter and isn't much busier."""
        return choose(self.replicas, adapter)


def choose(replicas: Sequence[Replica], adapter: str | None = None) -> Replica:
    """As `Pool.choose`, among any. One that is down is taken only where all are: it knows how long to wait."""
    up = [replica for replica in replicas if replica.is_up]
    if not up:
        return _least_loaded(replicas)
    idlest = _least_loaded(up)
    holders = [replica for replica in up if adapter is not None and replica.holds(adapter)]
    if not holders:
        return idlest
    holder = _least_loaded(holders)
    return holder if holder.in_flight <= idlest.in_flight + SPREAD else idlest


def pool_of(*engines: Engine) -> Pool:
    """A pool of these engines, which serve the same base, called `engine-0` and so on."""
    return Pool(engines[0].base, tuple(Replica(f"engine-{number}", engine) for number, engine in enumerate(engines)))


def _least_loaded(replicas: Collection[Replica]) -> Replica:
    return min(replicas, key=lambda replica: replica.in_flight)
