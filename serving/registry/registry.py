"""Names to versions, and versions to engines: what a request's `model` refers to, and which engine answers it.

How adapters are loaded into engines is in `loader`, what is on disk in `adapter_directory`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serving.adapters.adapter import Adapter
from serving.engines.engine import AdapterHost, Engine
from serving.errors import AdapterInUseError, EngineUnavailableError, ModelNotFoundError
from serving.registry.adapter_directory import AdapterDirectory, delete_adapter
from serving.registry.loader import AdapterLoader, AdapterState, Gate, RegistryObserver
from serving.registry.pool import Pool, Replica, choose

RESTART_WAIT_S = 600.0
"""How long a request waits for an engine that is being restarted on request: as long as OpenAI's clients wait. A large
model, or a busy machine, may take minutes to start; with less, requests fail in a restart that goes well."""


@dataclass(frozen=True)
class Lease:
    """Guarantees that `engine` serves `name` until the lease's context is left."""

    name: str
    """The version that answers: an adapter's name, or the name of a base or remote model as requested."""
    engine: Engine
    """Where to send the request."""
    is_known: Callable[[], bool] = lambda: True
    """Returns whether the engine's current generation has `name` loaded; a restart may have undone it."""


class Registry:
    """All models that can be requested by name: bases, adapters, aliases, and models of remote engines.

    The plain methods may be called from any thread, the coroutines only on the engines' event loop.
    """

    def __init__(
        self,
        adapters_dir: Path,
        pools: Sequence[Pool],
        *,
        base_model_map: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
        remotes: Sequence[Replica] = (),
        gate: Gate | None = None,
        is_gated: Callable[[Adapter], bool] = lambda adapter: True,
        observer: RegistryObserver | None = None,
    ) -> None:
        """adapters_dir: created if absent; new directories in it are noticed without a restart.

        pools: at least one; the first is for adapters that don't say which base they were made for.
        base_model_map: further name → base's name; the engines must know them too.
        aliases: name → version, read at each request; its owner changes it in place.
        remotes: remote engines, for the models that they list.
        gate: checks an adapter before it is published.
        """
        self._pools = {pool.base.sha256: pool for pool in pools}
        self._first = pools[0]
        self._directory = AdapterDirectory(adapters_dir, {pool.base.sha256: pool.base for pool in pools})
        self._observer = observer or RegistryObserver()
        self._loader = AdapterLoader(self._directory, gate, is_gated, self._observer)
        self._aliases = {} if aliases is None else aliases
        self._remotes = tuple(remotes)
        self._bases = {pool.base.name: pool for pool in pools}
        self._bases |= {name: self._bases[base] for name, base in (base_model_map or {}).items()}

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The bases that are served, each with its engines."""
        return tuple(self._pools.values())

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """All engines, the remote ones last."""
        return (*(replica for pool in self.pools for replica in pool.replicas), *self._remotes)

    @property
    def base_names(self) -> tuple[str, ...]:
        """All names of the base models, the first base's own first."""
        return tuple(self._bases)

    def base_pool(self, name: str) -> Pool | None:
        """Return the pool of the base of this name."""
        return self._bases.get(name)

    def pool_of(self, adapter: Adapter) -> Pool:
        """Return the pool that serves this adapter."""
        return self._pools.get(adapter.base_model_sha256 or "", self._first)

    @property
    def remote_names(self) -> tuple[str, ...]:
        """The models that remote engines list and whose names mean nothing else here."""
        listed = {name for remote in self._remotes for name in _models_of(remote)}
        return tuple(sorted(name for name in listed if name not in self._bases and self._directory.find(name) is None))

    def adapters(self) -> list[Adapter]:
        """Return the adapters that can be requested, oldest first."""
        return [adapter for adapter in self._directory.adapters() if self._is_available(adapter)]

    def awaiting_gate(self) -> list[Adapter]:
        """Return the adapters that the gate hasn't checked yet, oldest first."""
        return [
            adapter
            for adapter in self._directory.adapters()
            if not self._loader.is_published(adapter) and not self._loader.refusal(adapter)
        ]

    def broken(self) -> Mapping[str, str]:
        """Return directory name → reason, for each directory that can't be served; the others aren't affected."""
        refused = {
            adapter.path.name: refusal
            for adapter in self._directory.adapters()
            if (refusal := self._loader.refusal(adapter))
        }
        return {**self._directory.broken(), **refused}

    def names(self) -> list[str]:
        """Return every name that can be requested, the first base model's first."""
        return [
            *self._bases,
            *(adapter.name for adapter in self.adapters()),
            *(alias for alias in list(self._aliases)),
            *self.remote_names,
        ]

    def version_of(self, model: str) -> str:
        """Return the alias's current version; the name itself if it is no alias."""
        return self._aliases.get(model, model)

    def get(self, id_or_name: str) -> Adapter:
        """Return the adapter with this id or name, published or not. Raises: ModelNotFoundError."""
        adapter = self._directory.find(id_or_name)
        if adapter is None or self._is_being_removed(adapter):
            raise self._not_found_error(id_or_name)
        return adapter

    async def resolve(self, model: str) -> str:
        """Return the name under which an engine serves `model`, loading it if necessary. For requests prefer `lease`.

        Raises: see `lease`.
        """
        async with self.lease(model) as lease:
            return lease.name

    @asynccontextmanager
    async def lease(self, model: str) -> AsyncIterator[Lease]:
        """Lease the version that answers and its engine, loading it if necessary; it stays until the context ends.

        A hundred callers of one adapter cause one load. An alias is read once, on entering. An engine dies when a
        running request needs an adapter whose folder is gone, so `remove` waits for leases.
        Raises: ModelNotFoundError; AdapterError when the adapter is unfit; EngineUnavailableError.
        """
        version = self._aliases.get(model, model)
        if pool := self._bases.get(version):
            with await self._lease_replica(pool.replicas, version) as replica:
                yield Lease(version, replica.engine)
        elif adapter := self._directory.find(version):
            if self._is_being_removed(adapter):
                raise self._not_found_error(version)
            async with self._adapter_lease(adapter) as lease:
                yield lease
        elif remotes := [remote for remote in self._remotes if version in _models_of(remote)]:
            with await self._lease_replica(remotes, version) as replica:
                yield Lease(version, replica.engine)
        else:
            raise ModelNotFoundError(model, self.names(), self._directory.reason_unavailable(version))

    @asynccontextmanager
    async def _adapter_lease(self, adapter: Adapter) -> AsyncIterator[Lease]:
        state = self._loader.state_of(adapter.name)
        with _count_lease(state), await self._lease_replica(self.pool_of(adapter).replicas, adapter.name) as replica:
            await self._loader.load(adapter, replica)
            yield Lease(adapter.name, replica.engine, partial(replica.has_loaded, adapter.name))

    async def _lease_replica(self, replicas: Sequence[Replica], name: str) -> _ReplicaLease:
        """Reserve a place in the best replica for one request; wait while all are being drained."""
        try:
            async with asyncio.timeout(RESTART_WAIT_S):
                while not (replica := choose(replicas, name)).admits.is_set():
                    await replica.admits.wait()
        except TimeoutError as error:
            raise EngineUnavailableError("The engine is being restarted. Try again when it is ready.", 30.0) from error
        return _ReplicaLease(replica, name)

    async def publish(self, id_or_name: str) -> Adapter:
        """Load the adapter and have it pass the gate; return it. Raises: see `lease`."""
        adapter = self.get(id_or_name)
        async with self._adapter_lease(adapter):
            return self._directory.reread(adapter)

    async def remove(self, id_or_name: str, *, drain_timeout_s: float = 60.0, keep_name_taken: bool = True) -> Adapter:
        """Remove the adapter from engines and disk; return it. New requests are refused at once, running ones finish.

        keep_name_taken: whether its name may never be used again.
        Raises: ModelNotFoundError; AdapterInUseError when requests still use it after `drain_timeout_s`.
        """
        adapter = self.get(id_or_name)
        state = self._loader.state_of(adapter.name)
        state.removing = True
        try:
            await self._loader.unload_everywhere(adapter, self.pool_of(adapter).replicas, drain_timeout_s)
            if adapter.name in self._aliases.values():  # assigned between the caller's check and the drain
                raise AdapterInUseError(
                    f"An alias now points to {adapter.name}, so it wasn't removed. Point the alias to another "
                    "model first."
                )
            await asyncio.to_thread(delete_adapter, adapter, keep_name_taken=keep_name_taken)
            self._directory.invalidate()
        finally:
            state.removing = False
        self._loader.drop_state(adapter.name)
        self._observer.removed(adapter.name)
        return adapter

    async def restore_adapters(self, replica: Replica, host: AdapterHost) -> None:
        """Load what an engine that has just come up, or its predecessor, last had in use; then run the canary.

        Raises: EngineError when the engine can't be trusted.
        """
        await self._loader.restore_adapters(replica, host, self._select_for_restore(replica, host.limits.max_cpu_loras))

    def _select_for_restore(self, replica: Replica, most: int) -> list[Adapter]:
        """Return up to `most` published adapters of this replica's base: recently used, aliases' versions, newest."""
        derive = {
            adapter.name: adapter
            for adapter in self.adapters()
            if replica in self.pool_of(adapter).replicas and adapter.r <= replica.engine.limits.max_lora_rank
        }
        wanted = dict.fromkeys([*reversed(replica.loaded), *self._aliases.values(), *reversed(derive)])
        return [derive[name] for name in wanted if name in derive][:most]

    def _is_being_removed(self, adapter: Adapter) -> bool:
        """Return whether the adapter is being removed."""
        state = self._loader.find_state(adapter.name)
        return state is not None and state.removing

    def _not_found_error(self, model: str) -> ModelNotFoundError:
        return ModelNotFoundError(model, self.names(), self._directory.reason_unavailable(model))

    def _is_available(self, adapter: Adapter) -> bool:
        state = self._loader.find_state(adapter.name)
        return not (state and (state.refusal or state.removing)) and self._loader.is_published(adapter)


class _ReplicaLease:
    """One request's place in a replica, while the context is open."""

    def __init__(self, replica: Replica, name: str) -> None:
        self._replica, self._name = replica, name

    def __enter__(self) -> Replica:
        self._replica.leases[self._name] += 1
        return self._replica

    def __exit__(self, *_error: object) -> None:
        leases = self._replica.leases
        leases[self._name] -= 1
        if not leases[self._name]:
            del leases[self._name]


@contextmanager
def _count_lease(state: AdapterState) -> Iterator[None]:
    """Count one lease of an adapter while the context is open."""
    state.leases += 1
    try:
        yield
    finally:
        state.leases -= 1
        state.left_at = time.monotonic()
        if not state.leases:
            state.idle.set()


def _models_of(remote: Replica) -> Sequence[str]:
    """Return the models that a remote engine lists, see `serving.engines.remote.engine.RemoteEngine`."""
    models: Sequence[str] = getattr(remote.engine, "models", ())
    return models
