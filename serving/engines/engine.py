"""What every engine can do, whether it is a local process, a remote cluster or a test's fake."""

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
    """The state of an engine."""

    STOPPED = "stopped"
    """Not started, or stopped on purpose."""
    STARTING = "starting"
    """Being started, for the first time or again."""
    READY = "ready"
    """Takes requests."""
    DEAD = "dead"
    """Ended unexpectedly; a restart follows, unless it has been given up."""


@dataclass(frozen=True)
class EngineLimits:
    """What adapters and requests must fit into."""

    max_lora_rank: int
    """Largest rank `r` of an adapter."""
    max_loras: int
    """Adapters that one batch can hold."""
    max_cpu_loras: int
    """Adapters kept in memory; more can be registered, and are read from disk again when requested."""
    max_model_len: int | None
    """Maximum tokens of prompt and answer together; None while only the engine knows, before its first start."""


class EngineResponse(Protocol):
    """One response, not read yet."""

    @property
    def status(self) -> int:
        """HTTP status code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields; look-ups ignore case."""

    async def read(self) -> bytes:
        """Return the whole body. Raises: EngineUnavailableError if the engine goes away before its end."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, unparsed. Raises: EngineUnavailableError if the engine goes away early."""


class AdapterHost(Protocol):
    """What adapters need of an engine. An engine that has just started is one before it accepts requests."""

    @property
    def base(self) -> BaseModel:
        """The base model."""

    @property
    def limits(self) -> EngineLimits:
        """What adapters and requests must fit into."""

    async def load_adapter(self, name: str, path: Path) -> None:
        """Load the adapter at `path` under `name`; no effect if it is loaded already.

        Raises: AdapterError when the engine refuses it; EngineUnavailableError.
        """

    async def unload_adapter(self, name: str) -> None:
        """Unload the adapter; no effect if it isn't loaded. Raises: AdapterError, EngineUnavailableError."""

    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[EngineResponse]:
        """Pass a request to the engine unchanged. Leaving the context early makes the engine stop generating.

        Raises: EngineUnavailableError on entering, when the engine can't be reached.
        """


class Engine(AdapterHost, Protocol):
    """Serves one base model and any number of adapters on it."""

    @property
    def state(self) -> EngineState:
        """The engine's state."""

    @property
    def generation(self) -> int:
        """How often the engine has started. It forgets its adapters on a restart, which a new number indicates."""

    async def start(self, on_progress: OnProgress | None = None) -> None:
        """Return once the engine accepts requests. Raises: EngineStartError."""

    async def stop(self) -> None:
        """Return once nothing of the engine is left. No effect if it isn't running."""

    async def is_healthy(self) -> bool:
        """Return whether the engine answers now."""
