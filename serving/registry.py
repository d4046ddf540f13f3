"""Names to adapters: what lies in the adapters directory, and what the engine has been told of it.

It refuses to know HTTP, and how the engine runs. The directory is the truth; the engine is told on demand.
"""

import asyncio
import logging
import shutil
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serving.adapter import Adapter, scan_adapters
from serving.adapter_check import check_adapter
from serving.base_model import BaseModel
from serving.engine import Engine, EngineState
from serving.errors import AdapterError, AdapterInUseError, ModelNotFoundError

_SETTLED_NS = 100_000_000
"""A directory's modification time moves in steps of some milliseconds: one this young may hide a later change."""

logger = logging.getLogger(__name__)


@dataclass
class _Use:
    """What happens with one adapter in this process."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is checked, loaded or unloaded."""
    checked: bool = False
    loaded_in: int | None = None
    """The engine's generation that was told of it."""
    refusal: str | None = None
    """Why it can't be served, once that is known."""
    leases: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last lease ends."""
    removing: bool = False


class Registry:
    """All models that can be asked for by name: the base model and the adapters in one directory.

    The plain methods may be called from any thread, the coroutines from the engine's event loop alone.
    """

    def __init__(
        self, adapters_dir: Path, base: BaseModel, engine: Engine, *, base_aliases: Sequence[str] = ()
    ) -> None:
        """adapters_dir: created if absent; new directories in it are noticed without a restart.

        base_aliases: further names of the base model; the engine must know them too.
        """
        adapters_dir.mkdir(parents=True, exist_ok=True)
        for half_removed in adapters_dir.glob(".removed-*"):
            shutil.rmtree(half_removed, ignore_errors=True)
        self._dir = adapters_dir
        self._base = base
        self._base_names = (base.name, *base_aliases)
        self._engine = engine
        self._uses: dict[str, _Use] = {}
        self._scan_lock = threading.Lock()
        self._scanned: tuple[int, int] | None = None
        self._adapters: dict[str, Adapter] = {}
        self._broken: dict[str, str] = {}
        self._foreign: dict[str, str] = {}

    def adapters(self) -> list[Adapter]:
        """The adapters that can be asked for, oldest first."""
        self._rescan()
        return [adapter for adapter in self._adapters.values() if self._is_offered(adapter.name)]

    def broken(self) -> Mapping[str, str]:
        """Directory name → reason, for each directory that can't be served; it never stands in the others' way."""
        self._rescan()
        refused = {
            adapter.path.name: use.refusal
            for adapter in self._adapters.values()
            if (use := self._uses.get(adapter.name)) and use.refusal
        }
        return {**self._broken, **refused}

    def names(self) -> list[str]:
        """Every name that `resolve` accepts, the base model's first."""
        return [*self._base_names, *(adapter.name for adapter in self.adapters())]

    @property
    def base_names(self) -> tuple[str, ...]:
        """The names that the base model answers to, its own first."""
        return self._base_names

    def get(self, id_or_name: str) -> Adapter:
        """The adapter with this id or name. Raises: ModelNotFoundError; AdapterError when it is known to be unfit."""
        self._rescan()
        for adapter in self._adapters.values():
            use = self._uses.get(adapter.name)
            if id_or_name in (adapter.name, adapter.id) and not (use and use.removing):
                return adapter
        raise ModelNotFoundError(id_or_name, self.names(), self._why_not(id_or_name))

    async def resolve(self, model: str) -> str:
        """The name under which the engine serves `model`, loaded if it wasn't.

        A hundred callers of one adapter cause one load. Prefer `lease` around a whole request.
        Raises: ModelNotFoundError; AdapterError when the adapter is unfit; EngineUnavailableError.
        """
        async with self.lease(model) as name:
            return name

    @asynccontextmanager
    async def lease(self, model: str) -> AsyncIterator[str]:
        """`resolve`, and a promise that the adapter's files stay until the context is left: for a whole request.

        An engine dies when a running request needs an adapter whose folder is gone; `remove` waits for leases.
        """
        if model in self._base_names:
            yield model
            return
        adapter = self.get(model)
        use = self._uses.setdefault(adapter.name, _Use())
        use.leases += 1
        try:
            await self._load(adapter, use)
            yield adapter.name
        finally:
            use.leases -= 1
            if not use.leases:
                use.idle.set()

    async def remove(self, id_or_name: str, *, drain_timeout_s: float = 60.0) -> Adapter:
        """The adapter, no longer served and no longer on disk. New requests are refused at once, running ones finish.

        Raises: ModelNotFoundError; AdapterInUseError when requests still use it after `drain_timeout_s`.
        """
        adapter = self.get(id_or_name)
        use = self._uses.setdefault(adapter.name, _Use())
        use.removing = True
        try:
            await _drain(adapter, use, drain_timeout_s)
            async with use.lock:
                if use.loaded_in == self._engine.generation and self._engine.state is EngineState.READY:
                    await self._engine.unload_adapter(adapter.name)
                use.loaded_in = None
                await asyncio.to_thread(_delete, adapter.path)
        finally:
            use.removing = False
        self._rescan()
        self._uses.pop(adapter.name, None)
        return adapter

    async def _load(self, adapter: Adapter, use: _Use) -> None:
        """Checks the adapter if that hasn't been done, and tells the engine of it if it doesn't know it."""
        if use.loaded_in == self._engine.generation:
            return
        async with use.lock:
            if use.refusal:
                raise AdapterError(use.refusal)
            generation = self._engine.generation
            if use.loaded_in == generation:
                return
            try:
                if not use.checked:
                    await asyncio.to_thread(check_adapter, adapter.path, self._base, self._engine.limits)
                    use.checked = True
                await self._engine.load_adapter(adapter.name, adapter.path)
            except AdapterError as error:
                use.refusal = str(error)
                logger.warning("The adapter %s can't be served: %s", adapter.id, error)
                raise
            use.loaded_in = generation

    def _is_offered(self, name: str) -> bool:
        use = self._uses.get(name)
        return use is None or not (use.refusal or use.removing)

    def _why_not(self, id_or_name: str) -> str | None:
        """The reason why an adapter that is there isn't served."""
        return self._broken.get(id_or_name) or self._foreign.get(id_or_name)

    def _rescan(self) -> None:
        """Reads the directory again if it has changed."""
        with self._scan_lock:
            modified, now = self._dir.stat().st_mtime_ns, time.time_ns()
            if self._scanned and self._scanned[0] == modified and self._scanned[1] - modified > _SETTLED_NS:
                return
            adapters, broken = scan_adapters(self._dir)
            foreign = {adapter.name: reason for adapter in adapters if (reason := self._why_foreign(adapter))}
            broken |= {adapter.path.name: foreign[adapter.name] for adapter in adapters if adapter.name in foreign}
            for directory in broken.keys() - self._broken.keys():
                logger.warning("%s isn't served: %s", directory, broken[directory])
            self._adapters = {adapter.name: adapter for adapter in adapters if adapter.name not in foreign}
            self._foreign, self._broken = foreign, broken
            self._scanned = (modified, now)

    def _why_foreign(self, adapter: Adapter) -> str | None:
        """Why this adapter doesn't belong to the base model that is served; None when it does."""
        if adapter.base_model_sha256 in (None, self._base.sha256):
            return None
        return (
            f"{adapter.name} was made for {adapter.base_model!r} with other weights "
            f"({adapter.base_model_sha256[:12]}…) than {self._base.name!r} has here ({self._base.sha256[:12]}…). "
            "Serve it on its own base model, or train it again."
        )


async def _drain(adapter: Adapter, use: _Use, timeout_s: float) -> None:
    """Returns when nobody uses the adapter. Raises: AdapterInUseError."""
    while use.leases:
        use.idle.clear()
        try:
            await asyncio.wait_for(use.idle.wait(), timeout_s)
        except TimeoutError as error:
            raise AdapterInUseError(
                f"{adapter.name} is still used by {use.leases} requests after {timeout_s:.0f} s, and was kept. "
                "Try again when they are done."
            ) from error


def _delete(path: Path) -> None:
    """Removes the directory; from the first moment on nobody takes it for a whole one."""
    aside = path.with_name(f".removed-{path.name}")
    path.rename(aside)
    shutil.rmtree(aside)
