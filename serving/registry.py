"""Names to adapters: what lies in the adapters directory, and what the engine has been told of it.

It refuses to know HTTP, and how the engine runs. The directory is the truth; the engine is told on demand.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from serving.adapter import Adapter
from serving.base_model import BaseModel
from serving.engine import Engine


class Registry:
    """All models that can be asked for by name: the base model and the adapters in one directory."""

    def __init__(self, adapters_dir: Path, base: BaseModel, engine: Engine) -> None:
        """adapters_dir: created if absent; new directories in it are noticed without a restart."""
        raise NotImplementedError

    def adapters(self) -> list[Adapter]:
        """The adapters of this base, oldest first."""
        raise NotImplementedError

    def broken(self) -> Mapping[str, str]:
        """Directory name → reason, for each directory that can't be served; it never stands in the others' way."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Every name that `resolve` accepts, the base model first."""
        raise NotImplementedError

    def get(self, id_or_name: str) -> Adapter:
        """The adapter with this id or name. Raises: ModelNotFoundError."""
        raise NotImplementedError

    async def resolve(self, model: str) -> str:
        """The name under which the engine serves `model`, loaded if it wasn't.

        A hundred callers of one adapter cause one load. Prefer `lease` around a whole request.
        Raises: ModelNotFoundError; AdapterError when the adapter is unfit; EngineUnavailableError.
        """
        raise NotImplementedError

    def lease(self, model: str) -> AbstractAsyncContextManager[str]:
        """`resolve`, and a promise that the adapter's files stay until the context is left: hold it while a request runs.

        An engine dies when a running request needs an adapter whose folder is gone; `remove` waits for leases.
        """
        raise NotImplementedError

    async def remove(self, id_or_name: str, *, drain_timeout_s: float = 60.0) -> Adapter:
        """The adapter, no longer served and no longer on disk.

        Raises: ModelNotFoundError; AdapterInUseError when requests still use it after `drain_timeout_s`.
        """
        raise NotImplementedError
