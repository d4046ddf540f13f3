"""What the tests of the registry and of loading stand on: a directory, a registry over it, an engine behind it."""

from __future__ import annotations

from pathlib import Path

from serving import (
    BaseModel,
    Registry,
    pool_of,
)
from serving.adapters.adapter import read_adapter
from tests.serving.adapters.adapters_on_disk import write_adapter
from tests.serving.fake_engine import FakeEngine


class Place:
    """An adapters directory, the registry over it and the engine behind it."""

    def __init__(self, base: BaseModel, adapters_dir: Path) -> None:
        self.base, self.dir = base, adapters_dir
        self.engine = FakeEngine(base)
        self.registry = Registry(adapters_dir, [pool_of(self.engine)])

    def add(self, **content: object) -> str:
        """A new adapter's name."""
        return read_adapter(write_adapter(self.dir, self.base, **content)).name  # type: ignore[arg-type]
