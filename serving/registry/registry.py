"""Names to versions, and versions to engines: what a request's `model` means, and where it is answered.

It refuses to know HTTP, how an engine runs, and where aliases are kept. How adapters get into engines is in
`loading`, what lies in the directory in `shelf`.
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
from serving.engines.engine import AdapterPlace, Engine
from serving.errors import AdapterInUseError, EngineUnavailableError, ModelNotFoundError
from serving.registry.loading import Gate, Loading, Use
from serving.registry.observer import RegistryObserver
from serving.registry.pool import Pool, Replica, choose
from serving.registry.shelf import Shelf, discard

RESTART_WAIT_S = 180.0
"""How long a request waits for an engine that somebody asked to be restarted: first it is drained, then it starts."""


@dataclass(frozen=True)
class Lease:
    """A promise that `name` answers in `engine` until the lease's context is left."""

    name: str
    """The version that answers: an adapter's name, or the name of a base or remote model as it was asked for."""
    engine: Engine
    """Where to send the request."""
    is_known: Callable[[], bool] = lambda: True
    """Whether the engine, as it runs now, knows `name`; a restart while the request waited may have undone that."""


class Registry:
    """All models that can be asked for by name: bases, adapters, aliases, and models that others serve.

    The plain methods may be called from any thread, the coroutines from the engines' event loop alone.
    """

    def __init__(
        self,
        adapters_dir: Path,
        pools: Sequence[Pool],
        *,
        base_aliases: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
        remotes: Sequence[Replica] = (),
        gate: Gate | None = None,
        is_gated: Callable[[Adapter], bool] = lambda adapter: True,
        observer: RegistryObserver | None = None,
    ) -> None:
        """adapters_dir: created if absent; new directories in it are noticed without a restart.

        pools: at least one; the first is the base of adapters that don't say which they were made for.
        base_aliases: further name → base's name; the engines must know them too.
        aliases: name → version, read at each request: whoever owns it changes it in place.
        remotes: engines that others run, for the models that they list.
        gate: judges an adapter before it is published.
        """
        self._pools = {pool.base.sha256: pool for pool in pools}
        self._first = pools[0]
        self._shelf = Shelf(adapters_dir, {pool.base.sha256: pool.base for pool in pools})
        self._observer = observer or RegistryObserver()
        self._loading = Loading(self._shelf, gate, is_gated, self._observer)
        self._aliases = {} if aliases is None else aliases
        self._remotes = tuple(remotes)
        self._bases = {pool.base.name: pool for pool in pools}
        self._bases |= {name: self._bases[base] for name, base in (base_aliases or {}).items()}

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
        """The names that the base models answer to, the first base's own first."""
        return tuple(self._bases)

    def base_pool(self, name: str) -> Pool | None:
        """The pool of the base of this name, or further name."""
        return self._bases.get(name)

    def pool_of(self, adapter: Adapter) -> Pool:
        """The pool that serves this adapter."""
        return self._pools.get(adapter.base_model_sha256 or "", self._first)

    @property
    def remote_names(self) -> tuple[str, ...]:
        """The models that remote engines list and that mean nothing else here."""
        listed = {name for remote in self._remotes for name in _models_of(remote)}
        return tuple(sorted(name for name in listed if name not in self._bases and self._shelf.find(name) is None))

    def adapters(self) -> list[Adapter]:
        """The adapters that can be asked for, oldest first."""
        return [adapter for adapter in self._shelf.adapters() if self._is_offered(adapter)]

    def waiting(self) -> list[Adapter]:
        """The adapters that the gate hasn't judged yet, oldest first."""
        return [
            adapter
            for adapter in self._shelf.adapters()
            if not self._loading.is_published(adapter) and not self._loading.refusal(adapter)
        ]

    def broken(self) -> Mapping[str, str]:
        """Directory name → reason, for each directory that can't be served; it never stands in the others' way."""
        refused = {
            adapter.path.name: refusal
            for adapter in self._shelf.adapters()
            if (refusal := self._loading.refusal(adapter))
        }
        return {**self._shelf.broken(), **refused}

    def names(self) -> list[str]:
        """Every name that can be asked for, the first base model's first."""
        return [
            *self._bases,
            *(adapter.name for adapter in self.adapters()),
            *(alias for alias in list(self._aliases)),
            *self.remote_names,
        ]

    def version_of(self, model: str) -> str:
        """What the alias stands for now; the name itself where it is none."""
        return self._aliases.get(model, model)

    def get(self, id_or_name: str) -> Adapter:
        """The adapter with this id or name, be it published or not. Raises: ModelNotFoundError."""
        adapter = self._shelf.find(id_or_name)
        if adapter is None or self._is_going(adapter):
            raise self._not_found(id_or_name)
        return adapter

    async def resolve(self, model: str) -> str:
        """The name under which an engine serves `model`, loaded if it wasn't. Prefer `lease` around a request.

        Raises: as `lease`.
        """
        async with self.lease(model) as lease:
            return lease.name

    @asynccontextmanager
    async def lease(self, model: str) -> AsyncIterator[Lease]:
        """Which version answers and where, loaded if it wasn't; until the context is left, it stays there.

        A hundred callers of one adapter cause one load. An alias is read once, on entering. An engine dies when a
        running request needs an adapter whose folder is gone, so `remove` waits for leases.
        Raises: ModelNotFoundError; AdapterError when the adapter is unfit; EngineUnavailableError.
        """
        version = self._aliases.get(model, model)
        if pool := self._bases.get(version):
            with await self._hold(pool.replicas, version) as replica:
                yield Lease(version, replica.engine)
        elif adapter := self._shelf.find(version):
            if self._is_going(adapter):
                raise self._not_found(version)
            async with self._adapter_lease(adapter) as lease:
                yield lease
        elif remotes := [remote for remote in self._remotes if version in _models_of(remote)]:
            with await self._hold(remotes, version) as replica:
                yield Lease(version, replica.engine)
        else:
            raise ModelNotFoundError(model, self.names(), self._shelf.why_not(version))

    @asynccontextmanager
    async def _adapter_lease(self, adapter: Adapter) -> AsyncIterator[Lease]:
        use = self._loading.use_of(adapter.name)
        with _counted(use), await self._hold(self.pool_of(adapter).replicas, adapter.name) as replica:
            await self._loading.load(adapter, replica)
            yield Lease(adapter.name, replica.engine, partial(replica.holds, adapter.name))

    async def _hold(self, replicas: Sequence[Replica], name: str) -> _Hold:
        """A place for one request in the replica that is best for it now; waits while all are being drained."""
        try:
            async with asyncio.timeout(RESTART_WAIT_S):
                while not (replica := choose(replicas, name)).admits.is_set():
                    await replica.admits.wait()
        except TimeoutError as error:
            raise EngineUnavailableError("The engine is being restarted. Try again when it is up.", 30.0) from error
        return _Hold(replica, name)

    async def publish(self, id_or_name: str) -> Adapter:
        """The adapter, loaded ahead and let through by the gate. Raises: as `lease`."""
        adapter = self.get(id_or_name)
        async with self._adapter_lease(adapter):
            return self._shelf.reread(adapter)

    async def remove(self, id_or_name: str, *, drain_timeout_s: float = 60.0, keep_name_taken: bool = True) -> Adapter:
        """The adapter, no longer served and no longer on disk. New requests are refused at once, running ones finish.

        keep_name_taken: whether nothing else may ever get its name.
        Raises: ModelNotFoundError; AdapterInUseError when requests still use it after `drain_timeout_s`.
        """
        adapter = self.get(id_or_name)
        use = self._loading.use_of(adapter.name)
        use.removing = True
        try:
            await self._loading.take_out(adapter, self.pool_of(adapter).replicas, drain_timeout_s)
            if adapter.name in self._aliases.values():  # given in the moment between the caller's look and the drain
                raise AdapterInUseError(
                    f"{adapter.name} was just given to an alias, and is kept. Point the alias elsewhere first."
                )
            await asyncio.to_thread(discard, adapter, keep_name_taken=keep_name_taken)
            self._shelf.forget()
        finally:
            use.removing = False
        self._loading.forget(adapter.name)
        self._observer.removed(adapter.name)
        return adapter

    async def replay(self, replica: Replica, place: AdapterPlace) -> None:
        """Tells an engine that has just come up what it, or one before it, was asked for last; then the canary.

        Raises: EngineError when the engine isn't to be trusted.
        """
        await self._loading.replay(replica, place, self._worth_loading(replica, place.limits.max_cpu_loras))

    def _worth_loading(self, replica: Replica, most: int) -> list[Adapter]:
        """At most `most` published adapters of this replica's base: lately used, aliases' versions, the newest."""
        fitting = {
            adapter.name: adapter
            for adapter in self.adapters()
            if replica in self.pool_of(adapter).replicas and adapter.r <= replica.engine.limits.max_lora_rank
        }
        wanted = dict.fromkeys([*reversed(replica.loaded), *self._aliases.values(), *reversed(fitting)])
        return [fitting[name] for name in wanted if name in fitting][:most]

    def _is_going(self, adapter: Adapter) -> bool:
        """Whether the adapter is just being removed."""
        use = self._loading.known(adapter.name)
        return use is not None and use.removing

    def _not_found(self, model: str) -> ModelNotFoundError:
        return ModelNotFoundError(model, self.names(), self._shelf.why_not(model))

    def _is_offered(self, adapter: Adapter) -> bool:
        use = self._loading.known(adapter.name)
        return not (use and (use.refusal or use.removing)) and self._loading.is_published(adapter)


class _Hold:
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
def _counted(use: Use) -> Iterator[None]:
    """Counts one lease of an adapter for as long as the context is open."""
    use.leases += 1
    try:
        yield
    finally:
        use.leases -= 1
        use.left_at = time.monotonic()
        if not use.leases:
            use.idle.set()


def _models_of(remote: Replica) -> Sequence[str]:
    """The models that a remote engine lists; `serving.engines.remote.engine.RemoteEngine` knows them."""
    models: Sequence[str] = getattr(remote.engine, "models", ())
    return models
