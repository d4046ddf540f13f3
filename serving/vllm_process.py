"""One supervised vLLM on a Unix socket that only we can open. Implements `serving.engine.Engine`.

It refuses to know adapters' files and the HTTP that clients speak.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from serving.base_model import BaseModel
from serving.engine import EngineLimits, EngineResponse, EngineState, OnProgress


@dataclass(frozen=True)
class VLLMSettings:
    """How to run vLLM. None means: chosen from what the machine has."""

    state_dir: Path
    """Holds `engine.json`, which says what runs, so that a later start can end what was left behind. One server per directory."""
    log_path: Path
    """Where the engine's output goes, appended."""
    max_lora_rank: int = 64
    """Largest adapter rank: 1, 8, 16, 32, 64, 128, 256, 320 or 512. Larger than needed costs speed."""
    max_loras: int = 4
    """Adapters that one batch can hold; each costs memory."""
    max_cpu_loras: int = 16
    """Adapters kept in memory."""
    max_model_len: int | None = None
    """Most tokens of prompt and answer together; default: what the model was made for, at most 8192 on a processor."""
    dtype: str | None = None
    """`float32`, `bfloat16` or `float16`."""
    kv_cache_gib: int | None = None
    """GiB for keys and values on a processor; more means more requests at once."""
    gpu_memory_utilization: float = 0.6
    """Share of a GPU's memory for the engine; the rest is left to training."""
    tool_call_parser: str | None = None
    """vLLM's name for the way that the base model writes tool calls, e.g. `hermes`; None turns tool calls off."""
    start_timeout_s: float = 900.0
    """Given up after this many seconds."""
    max_restarts: int = 5
    """Restarts in a row, after the engine died by itself, before it is left dead."""
    extra_args: tuple[str, ...] = ()
    """Passed to vLLM as they are, after all others."""


class VLLMProcess:
    """The engine: one vLLM, its keeper process, and the task that restarts it."""

    def __init__(self, base: BaseModel, settings: VLLMSettings) -> None:
        raise NotImplementedError

    @property
    def base(self) -> BaseModel:
        """The base model."""
        raise NotImplementedError

    @property
    def limits(self) -> EngineLimits:
        """What adapters and requests must fit into."""
        raise NotImplementedError

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life."""
        raise NotImplementedError

    @property
    def generation(self) -> int:
        """How many times it came up."""
        raise NotImplementedError

    async def start(self, on_progress: OnProgress | None = None) -> None:
        """Returns when vLLM takes requests. Raises: EngineStartError."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Returns when no process of the engine is left."""
        raise NotImplementedError

    async def is_healthy(self) -> bool:
        """Whether vLLM's own health check passes now."""
        raise NotImplementedError

    async def load_adapter(self, name: str, path: Path) -> None:
        """See `Engine.load_adapter`."""
        raise NotImplementedError

    async def unload_adapter(self, name: str) -> None:
        """See `Engine.unload_adapter`."""
        raise NotImplementedError

    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[EngineResponse]:
        """See `Engine.request`."""
        raise NotImplementedError
