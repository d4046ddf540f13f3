"""An engine for faults that the real one shows only by chance: slow loads, refusals, restarts at a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from serving import AdapterError, BaseModel, EngineResponse, EngineState, OnProgress
from tests.serving.conftest import LIMITS


class FakeEngine:
    """Remembers what it was told; `restart` forgets it, as the real one does."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.limits = LIMITS
        self.state = EngineState.READY
        self.generation = 1
        self.loaded: dict[str, Path] = {}
        self.loads: list[str] = []
        self.refuse: str | None = None

    async def start(self, on_progress: OnProgress | None = None) -> None: ...

    async def stop(self) -> None: ...

    def restart(self) -> None:
        self.loaded.clear()
        self.generation += 1

    async def is_healthy(self) -> bool:
        return True

    async def load_adapter(self, name: str, path: Path) -> None:
        self.loads.append(name)
        await asyncio.sleep(0.05)
        if self.refuse:
            raise AdapterError(self.refuse)
        self.loaded[name] = path

    async def unload_adapter(self, name: str) -> None:
        assert self.loaded[name].is_dir(), "unloaded after its files were gone"
        del self.loaded[name]

    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[EngineResponse]:
        raise NotImplementedError
