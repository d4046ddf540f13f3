"""What every engine can do. It refuses to know how: a process, a cluster and a test's stand-in look alike from here."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from serving.base_model import BaseModel

OnProgress = Callable[[str, float, float], None]
"""Called with (stage in a few words, elapsed seconds, expected seconds) while an engine starts."""


class EngineState(StrEnum):
    """Where an engine is in its life."""

    STOPPED = "stopped"
    """Not started, or stopped on purpose."""
    STARTING = "starting"
    """Being started, for the first time or again."""
    READY = "ready"
    """Takes requests."""
    DEAD = "dead"
    """Ended by itself; a restart follows, or has been given up."""


@dataclass(frozen=True)
class EngineLimits:
    """What adapters and requests must fit into."""

    max_lora_rank: int
    """Largest rank `r` of an adapter."""
    max_loras: int
    """Adapters that one batch can hold."""
    max_cpu_loras: int
    """Adapters kept in memory; more can be registered, and are then read again from disk when asked for."""
    max_model_len: int | None
    """Most tokens of prompt and answer together; None when the engine decides."""


class EngineResponse(Protocol):
    """One answer, not yet read."""

    @property
    def status(self) -> int:
        """HTTP status code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields; look-ups ignore case."""

    async def read(self) -> bytes:
        """The whole body. Raises: EngineUnavailableError if the engine goes away before its end."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, unparsed. Raises: EngineUnavailableError if the engine goes away before its end."""


class AdapterPlace(Protocol):
    """What adapters need of an engine. An engine that has just come up is one before it takes anybody's requests."""

    @property
    def base(self) -> BaseModel:
        """The base model."""

    @property
    def limits(self) -> EngineLimits:
        """What adapters and requests must fit into."""

    async def load_adapter(self, name: str, path: Path) -> None:
        """The adapter at `path` answers to `name` from now on; no effect if it already does.

        Raises: AdapterError when the engine refuses it; EngineUnavailableError.
        """

    async def unload_adapter(self, name: str) -> None:
        """`name` answers no more; no effect if it didn't. Raises: AdapterError, EngineUnavailableError."""

    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[EngineResponse]:
        """Passes a request to the engine as it is. Leaving the context early makes the engine stop generating.

        Raises: EngineUnavailableError on entering, when the engine can't be reached.
        """


class Engine(AdapterPlace, Protocol):
    """Serves one base model and any number of adapters on it."""

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life."""

    @property
    def generation(self) -> int:
        """How many times it came up. An engine forgets its adapters when it restarts: a new number says so."""

    async def start(self, on_progress: OnProgress | None = None) -> None:
        """Returns when the engine takes requests. Raises: EngineStartError."""

    async def stop(self) -> None:
        """Returns when nothing of the engine is left. Harmless when it isn't running."""

    async def is_healthy(self) -> bool:
        """Whether the engine answers now."""
