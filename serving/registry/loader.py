"""Loads adapters into engines and unloads them: files checked once, one load for all who wait, the least recently used
evicted, the parity gate before any request.
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
from serving.engines.engine import AdapterHost, Engine, EngineLimits, EngineState
from serving.errors import (
    AdapterError,
    AdapterInUseError,
    AdapterMisfitError,
    AdapterUncheckedError,
    EngineError,
    ParityError,
    ServingError,
)
from serving.registry.adapter_directory import AdapterDirectory
from serving.registry.pool import Replica

UNCHECKED_S = 30.0
"""How long an adapter that couldn't be checked isn't tried again: each attempt may load a whole base model."""
ABORT_GRACE_S = 1.0
"""A client that disconnects ends its lease at once, but the engine drops the request a moment later, and dies if the
folder of that request's adapter is gone by then."""

logger = logging.getLogger(__name__)


class Gate(Protocol):
    """Decides whether an adapter may be published; implemented by `serving.parity.gate.ParityGate`."""

    async def check(self, adapter: Adapter, engine: Engine) -> None:
        """Check an adapter that the engine has loaded, and record in its manifest that it passed.

        Raises: ParityError, with the evidence recorded; EngineUnavailableError, with nothing recorded.
        """

    async def run_canary(self, engine: AdapterHost, adapters: Sequence[Adapter]) -> dict[str, str]:
        """Return adapter's name → how its answers differ from those when it was published; empty if all is well.

        Raises: EngineError when the base itself answers differently, or the engine is away.
        """


def _ignore(*_event: object) -> None:
    """Ignore the event."""


@dataclass(frozen=True)
class RegistryObserver:
    """Callbacks for metrics, on the engines' event loop; they must be quick and not raise."""

    loaded: Callable[[str, str, float], None] = _ignore
    """(model, engine's id, seconds that the load took)"""
    evicted: Callable[[str, str], None] = _ignore
    """(model, engine's id): unloaded to make room for another."""
    refused: Callable[[str, str], None] = _ignore
    """(model, reason)"""
    parity: Callable[[str, bool], None] = _ignore
    """(model, whether it passed the gate)"""
    removed: Callable[[str], None] = _ignore
    """(model): no more requests for it will come."""


@dataclass
class AdapterState:
    """The state of one adapter in this process."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is checked, loaded or unloaded."""
    checked_for: EngineLimits | None = None
    """The limits that its files were checked against."""
    refusal: AdapterError | None = None
    """Why it can't be served, once known."""
    leases: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last lease ends."""
    left_at: float = 0.0
    """When the last lease ended, on the monotonic clock."""
    removing: bool = False
    unchecked: tuple[float, AdapterUncheckedError] | None = None
    """Until when it isn't checked again, on the monotonic clock, and why the gate couldn't check it."""


class AdapterLoader:
    """Loads the adapters of one registry. Its coroutines run on the engines' event loop."""

    def __init__(
        self,
        directory: AdapterDirectory,
        gate: Gate | None,
        is_gated: Callable[[Adapter], bool],
        observer: RegistryObserver,
    ) -> None:
        """gate: None publishes every adapter whose files pass the checks.

        is_gated: returns whether the gate applies to an adapter.
        """
        self._directory, self._gate, self._is_gated, self._observer = directory, gate, is_gated, observer
        self._states: dict[str, AdapterState] = {}

    def state_of(self, name: str) -> AdapterState:
        """Return the state of the adapter of this name, created if absent."""
        return self._states.setdefault(name, AdapterState())

    def find_state(self, name: str) -> AdapterState | None:
        """Return the state of the adapter of this name, if there is one."""
        return self._states.get(name)

    def drop_state(self, name: str) -> None:
        """Drop the state of a removed adapter."""
        self._states.pop(name, None)

    def is_published(self, adapter: Adapter) -> bool:
        """Return whether the adapter has passed the gate, or the gate doesn't apply to it."""
        if self._gate is None or not self._is_gated(adapter):
            return True
        parity = adapter.manifest.get("parity")
        return isinstance(parity, dict) and parity.get("passed") is True

    def refusal(self, adapter: Adapter) -> str | None:
        """Return why this adapter can't be served, if known."""
        state = self._states.get(adapter.name)
        if state and state.refusal:
            return str(state.refusal)
        failed = self._recorded_failure(adapter)
        return str(failed) if failed else None

    def _recorded_failure(self, adapter: Adapter) -> ParityError | None:
        """Return the failure recorded in the manifest, where the gate applies and rejected the adapter."""
        parity = adapter.manifest.get("parity")
        if not isinstance(parity, dict) or parity.get("passed") is not False or self.is_published(adapter):
            return None
        reasons = parity.get("reasons")
        explanation = " ".join(map(str, reasons)) if isinstance(reasons, list) else "no reason in its manifest."
        return ParityError(f"{adapter.name} failed the parity gate and isn't published: {explanation}")

    async def load(self, adapter: Adapter, replica: Replica) -> None:
        """Return once the replica's engine serves the adapter, and it has passed the gate.

        Raises: AdapterError when it is unfit (AdapterMisfitError: for the engine's limits); EngineUnavailableError.
        """
        state = self.state_of(adapter.name)
        if replica.has_loaded(adapter.name) and self.is_published(adapter):
            replica.mark_used(adapter.name)
            return
        async with state.lock:
            if state.refusal:
                raise state.refusal
            if state.unchecked and time.monotonic() < state.unchecked[0]:
                raise state.unchecked[1]
            try:
                await self._load(adapter, state, replica)
            except AdapterMisfitError:
                raise  # a restart of the engine may fix it
            except AdapterUncheckedError as error:  # more memory may fix it, but a hundred callers mustn't all try
                state.unchecked = (time.monotonic() + UNCHECKED_S, error)
                raise
            except AdapterError as error:
                state.refusal = error
                self._observer.refused(adapter.name, str(error))
                logger.warning("Can't serve the adapter %s: %s", adapter.id, error)
                raise

    async def _load(self, adapter: Adapter, state: AdapterState, replica: Replica) -> None:
        adapter = self._directory.find(adapter.name) or adapter  # it may have been checked while we waited for the lock
        if failed := self._recorded_failure(adapter):
            raise failed
        if not replica.has_loaded(adapter.name):
            await self._load_into_engine(adapter, state, replica)
        if self._gate and not self.is_published(adapter):
            await self._run_gate(self._gate, adapter, replica)

    async def _load_into_engine(self, adapter: Adapter, state: AdapterState, replica: Replica) -> None:
        """Check the adapter's files, once, and load them into the engine."""
        limits = replica.engine.limits
        if state.checked_for != limits:
            await asyncio.to_thread(check_adapter, adapter.path, self._directory.base_of(adapter), limits)
            state.checked_for = limits
        await self._make_room(replica)
        started = time.monotonic()
        replica.maybe_loaded.add(adapter.name)  # even if the caller leaves before the engine has answered
        await replica.engine.load_adapter(adapter.name, adapter.path)
        replica.mark_loaded(adapter.name)
        self._observer.loaded(adapter.name, replica.id, time.monotonic() - started)

    async def _run_gate(self, gate: Gate, adapter: Adapter, replica: Replica) -> None:
        try:
            await gate.check(adapter, replica.engine)
        except AdapterError as error:
            await self._unload(adapter.name, replica)
            if isinstance(error, ParityError):
                self._observer.parity(adapter.name, False)
                raise
            raise AdapterUncheckedError(str(error)) from error
        finally:
            self._directory.reread(adapter)
        self._observer.parity(adapter.name, True)

    async def _make_room(self, replica: Replica) -> None:
        """Evict the least recently used adapters until one more fits the engine's memory.

        If all are in use, none is evicted: the engine then has more names than adapters in memory, and reads from disk.
        """
        excess = len(replica.loaded_names()) - replica.engine.limits.max_cpu_loras + 1
        for name in replica.loaded_names():
            if excess <= 0:
                return
            state = self.state_of(name)
            if replica.leases[name] or state.lock.locked():
                continue
            async with state.lock:
                if not replica.leases[name] and await self._unload(name, replica):
                    excess -= 1
                    self._observer.evicted(name, replica.id)

    async def _unload(self, name: str, replica: Replica) -> bool:
        """Unload the adapter, which counts as unloaded from the start; return whether the engine has dropped it."""
        if not replica.has_loaded(name):
            return False
        del replica.loaded[name]
        try:
            await replica.engine.unload_adapter(name)
        except ServingError as error:
            logger.warning("%s stays loaded in %s: %s", name, replica.id, error)
            return False
        replica.maybe_loaded.discard(name)
        return True

    async def unload_everywhere(self, adapter: Adapter, replicas: Sequence[Replica], drain_timeout_s: float) -> None:
        """Return once no engine uses the adapter; the caller holds no lease of it.

        Raises: AdapterInUseError; AdapterError or EngineUnavailableError when an engine fails to unload it.
        """
        state = self.state_of(adapter.name)
        await _drain(adapter, state, drain_timeout_s)
        async with state.lock:
            await asyncio.sleep(max(0.0, state.left_at + ABORT_GRACE_S - time.monotonic()))
            for replica in replicas:
                if adapter.name in replica.maybe_loaded and replica.engine.state is EngineState.READY:
                    await replica.engine.unload_adapter(adapter.name)
                replica.maybe_loaded.discard(adapter.name)
                replica.loaded.pop(adapter.name, None)

    async def restore_adapters(self, replica: Replica, host: AdapterHost, wanted: Sequence[Adapter]) -> None:
        """Load these adapters into an engine that has just come up, and run the canary, before it takes requests.

        wanted: most recently used first.

        Raises: EngineError when the base answers differently than before: the engine can't be trusted.
        """
        replica.maybe_loaded.clear()
        back: list[Adapter] = []
        for adapter in reversed(wanted):
            if self.state_of(adapter.name).removing or not adapter.path.is_dir():
                continue
            try:
                await host.load_adapter(adapter.name, adapter.path)
            except AdapterError as error:
                logger.warning("%s isn't reloaded: %s", adapter.name, error)
                continue
            if self.state_of(adapter.name).removing:  # its folder may disappear at any moment
                await host.unload_adapter(adapter.name)
                continue
            replica.mark_loaded(adapter.name)
            back.append(adapter)
        if self._gate is None:
            return
        for name, fault in (await self._gate.run_canary(host, back)).items():
            if getattr(host, "after_sleep", False):
                raise EngineError(f"{name} answers differently after the engine's sleep: {fault}")
            logger.error("%s answers differently since the engine started and is unloaded: %s", name, fault)
            self.state_of(name).refusal = ParityError(
                f"{name} failed the canary after a restart of the engine: {fault}"
            )
            self._observer.parity(name, False)
            replica.loaded.pop(name, None)
            try:
                await host.unload_adapter(name)
            except AdapterError as error:
                raise EngineError(f"{name} failed the canary and stays loaded: {error}") from error


async def _drain(adapter: Adapter, state: AdapterState, timeout_s: float) -> None:
    """Wait until no request uses the adapter. Raises: AdapterInUseError."""
    try:
        async with asyncio.timeout(timeout_s):
            while state.leases:
                state.idle.clear()
                await state.idle.wait()
    except TimeoutError as error:
        raise AdapterInUseError(
            f"{adapter.name} is still used by {state.leases} requests after {timeout_s:.0f} s and wasn't removed. "
            "Try again when they are done."
        ) from error
