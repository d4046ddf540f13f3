"""Brings adapters into engines and out again: checked once, loaded once for all who wait, the least recently used
evicted, the parity gate before anyone is answered. It refuses to know names that clients use; see `registry`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from serving.adapters.adapter import Adapter
from serving.adapters.check import check_adapter
from serving.engines.engine import AdapterPlace, Engine, EngineLimits, EngineState
from serving.errors import (
    AdapterError,
    AdapterInUseError,
    AdapterMisfitError,
    AdapterUncheckedError,
    EngineError,
    ParityError,
    ServingError,
)
from serving.registry.observer import RegistryObserver
from serving.registry.pool import Replica
from serving.registry.shelf import Shelf

UNCHECKED_S = 30.0
"""How long an adapter that couldn't be judged isn't tried again: each try may load a whole base model."""
ABORT_GRACE_S = 1.0
"""A caller who leaves ends the lease at once, but the engine drops the request a moment later, and dies where the
folder of a request's adapter is gone by then."""

logger = logging.getLogger(__name__)


class Gate(Protocol):
    """Decides whether an adapter may be published; `serving.parity.gate.Gate` is the real one."""

    async def check(self, adapter: Adapter, engine: Engine) -> None:
        """Returns once it is written in the adapter's manifest that it passed. The engine has loaded it.

        Raises: ParityError, with the evidence written, too; EngineUnavailableError, with nothing written.
        """

    async def canary(self, engine: AdapterPlace, adapters: Sequence[Adapter]) -> dict[str, str]:
        """Adapter's name → what it answers otherwise now than when it was published; empty when all is well.

        Raises: EngineError when the base itself answers otherwise, or the engine is away.
        """


@dataclass
class Use:
    """What happens with one adapter in this process."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is checked, loaded or unloaded."""
    checked_for: EngineLimits | None = None
    """The limits that its files were found to fit."""
    refusal: AdapterError | None = None
    """Why it can't be served, once that is known."""
    leases: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last lease ends."""
    left_at: float = 0.0
    """When the last lease ended, by the monotonic clock."""
    removing: bool = False
    unchecked: tuple[float, AdapterUncheckedError] | None = None
    """Why the gate couldn't judge it, and until when that is taken to hold, by the monotonic clock."""


class Loading:
    """The loads of all adapters of one registry. Its coroutines belong to the engines' event loop."""

    def __init__(
        self, shelf: Shelf, gate: Gate | None, is_gated: Callable[[Adapter], bool], observer: RegistryObserver
    ) -> None:
        """gate: None lets every adapter through that passes the checks of its files.

        is_gated: which adapters the gate is for.
        """
        self._shelf, self._gate, self._gates, self._observer = shelf, gate, is_gated, observer
        self._uses: dict[str, Use] = {}

    def use_of(self, name: str) -> Use:
        """What is known of the adapter of this name."""
        return self._uses.setdefault(name, Use())

    def known(self, name: str) -> Use | None:
        """As `use_of`, without beginning to know it."""
        return self._uses.get(name)

    def forget(self, name: str) -> None:
        """Drops what is known of an adapter that is gone."""
        self._uses.pop(name, None)

    def is_published(self, adapter: Adapter) -> bool:
        """Whether the gate has let it through, or isn't for it."""
        if self._gate is None or not self._gates(adapter):
            return True
        parity = adapter.manifest.get("parity")
        return isinstance(parity, dict) and parity.get("passed") is True

    def refusal(self, adapter: Adapter) -> str | None:
        """Why this adapter can't be served, as far as is known."""
        use = self._uses.get(adapter.name)
        if use and use.refusal:
            return str(use.refusal)
        failed = self._failed_before(adapter)
        return str(failed) if failed else None

    def _failed_before(self, adapter: Adapter) -> ParityError | None:
        """What the adapter's manifest says against it, where the gate is for it and refused it."""
        parity = adapter.manifest.get("parity")
        if not isinstance(parity, dict) or parity.get("passed") is not False or self.is_published(adapter):
            return None
        reasons = parity.get("reasons")
        told = " ".join(map(str, reasons)) if isinstance(reasons, list) else "its manifest doesn't say why."
        return ParityError(f"{adapter.name} failed the parity gate and isn't published: {told}")

    async def load(self, adapter: Adapter, replica: Replica) -> None:
        """Returns when the replica's engine serves the adapter, and the gate has let it through.

        Raises: AdapterError when it is unfit (AdapterMisfitError: for the engine as it runs); EngineUnavailableError.
        """
        use = self.use_of(adapter.name)
        if replica.holds(adapter.name) and self.is_published(adapter):
            replica.used(adapter.name)
            return
        async with use.lock:
            if use.refusal:
                raise use.refusal
            if use.unchecked and time.monotonic() < use.unchecked[0]:
                raise use.unchecked[1]
            try:
                await self._load(adapter, use, replica)
            except AdapterMisfitError:
                raise  # a restart of the engine may mend it
            except AdapterUncheckedError as error:  # more memory may mend it, but a hundred callers mustn't all try
                use.unchecked = (time.monotonic() + UNCHECKED_S, error)
                raise
            except AdapterError as error:
                use.refusal = error
                self._observer.refused(adapter.name, str(error))
                logger.warning("The adapter %s can't be served: %s", adapter.id, error)
                raise

    async def _load(self, adapter: Adapter, use: Use, replica: Replica) -> None:
        adapter = self._shelf.find(adapter.name) or adapter  # whoever had the lock before may have had it judged
        if failed := self._failed_before(adapter):
            raise failed
        if not replica.holds(adapter.name):
            await self._tell(adapter, use, replica)
        if self._gate and not self.is_published(adapter):
            await self._judge(self._gate, adapter, replica)

    async def _tell(self, adapter: Adapter, use: Use, replica: Replica) -> None:
        """Checks the adapter's files, once, and has the engine load them."""
        limits = replica.engine.limits
        if use.checked_for != limits:
            await asyncio.to_thread(check_adapter, adapter.path, self._shelf.base_of(adapter), limits)
            use.checked_for = limits
        await self._make_room(replica)
        started = time.monotonic()
        replica.may_know.add(adapter.name)  # also where the caller leaves before the engine has answered
        await replica.engine.load_adapter(adapter.name, adapter.path)
        replica.told(adapter.name)
        self._observer.loaded(adapter.name, replica.id, time.monotonic() - started)

    async def _judge(self, gate: Gate, adapter: Adapter, replica: Replica) -> None:
        try:
            await gate.check(adapter, replica.engine)
        except AdapterError as error:
            await self._unload(adapter.name, replica)
            if isinstance(error, ParityError):
                self._observer.parity(adapter.name, False)
                raise
            raise AdapterUncheckedError(str(error)) from error
        finally:
            self._shelf.reread(adapter)
        self._observer.parity(adapter.name, True)

    async def _make_room(self, replica: Replica) -> None:
        """Evicts the least recently used adapters until one more fits the engine's memory.

        Where all are in use, none is evicted: the engine then holds more names than adapters, and reads again.
        """
        excess = len(replica.held()) - replica.engine.limits.max_cpu_loras + 1
        for name in replica.held():
            if excess <= 0:
                return
            use = self.use_of(name)
            if replica.leases[name] or use.lock.locked():
                continue
            async with use.lock:
                if not replica.leases[name] and await self._unload(name, replica):
                    excess -= 1
                    self._observer.evicted(name, replica.id)

    async def _unload(self, name: str, replica: Replica) -> bool:
        """Whether the engine has let go of the adapter; from the first moment on nobody counts on it."""
        if not replica.holds(name):
            return False
        del replica.loaded[name]
        try:
            await replica.engine.unload_adapter(name)
        except ServingError as error:
            logger.warning("%s stays loaded in %s: %s", name, replica.id, error)
            return False
        replica.may_know.discard(name)
        return True

    async def take_out(self, adapter: Adapter, replicas: Sequence[Replica], drain_timeout_s: float) -> None:
        """Returns when no engine uses the adapter any more; the caller holds nothing of it.

        Raises: AdapterInUseError; AdapterError or EngineUnavailableError when an engine won't let go of it.
        """
        use = self.use_of(adapter.name)
        await _drain(adapter, use, drain_timeout_s)
        async with use.lock:
            await asyncio.sleep(max(0.0, use.left_at + ABORT_GRACE_S - time.monotonic()))
            for replica in replicas:
                if adapter.name in replica.may_know and replica.engine.state is EngineState.READY:
                    await replica.engine.unload_adapter(adapter.name)
                replica.may_know.discard(adapter.name)
                replica.loaded.pop(adapter.name, None)

    async def replay(self, replica: Replica, place: AdapterPlace, wanted: Sequence[Adapter]) -> None:
        """Tells an engine that has just come up of these adapters, and asks the canary, before anyone is let in.

        wanted: the most recently used first.

        Raises: EngineError when the base answers otherwise than before: the engine isn't to be trusted.
        """
        replica.may_know.clear()
        back: list[Adapter] = []
        for adapter in reversed(wanted):
            if self.use_of(adapter.name).removing or not adapter.path.is_dir():
                continue
            try:
                await place.load_adapter(adapter.name, adapter.path)
            except AdapterError as error:
                logger.warning("%s isn't loaded again: %s", adapter.name, error)
                continue
            if self.use_of(adapter.name).removing:  # its folder may go at any moment
                await place.unload_adapter(adapter.name)
                continue
            replica.told(adapter.name)
            back.append(adapter)
        if self._gate is None:
            return
        for name, fault in (await self._gate.canary(place, back)).items():
            if getattr(place, "after_sleep", False):
                raise EngineError(f"{name} answers otherwise after the sleep: {fault}")
            logger.error("%s answers otherwise since the engine came up, and is taken out: %s", name, fault)
            self.use_of(name).refusal = ParityError(f"{name} failed the canary after a restart of the engine: {fault}")
            self._observer.parity(name, False)
            replica.loaded.pop(name, None)
            try:
                await place.unload_adapter(name)
            except AdapterError as error:
                raise EngineError(f"{name} failed the canary and stays loaded: {error}") from error


async def _drain(adapter: Adapter, use: Use, timeout_s: float) -> None:
    """Returns when nobody uses the adapter. Raises: AdapterInUseError."""
    try:
        async with asyncio.timeout(timeout_s):
            while use.leases:
                use.idle.clear()
                await use.idle.wait()
    except TimeoutError as error:
        raise AdapterInUseError(
            f"{adapter.name} is still used by {use.leases} requests after {timeout_s:.0f} s, and was kept. "
            "Try again when they are done."
        ) from error
