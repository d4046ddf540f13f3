"""What can go wrong between a model name and its tokens.

It refuses to know HTTP status codes: `server/errors.py` maps these.

    ServingError
    ├── BaseModelError              the base model can't be found or isn't one that can be served
    ├── AdapterError                an adapter is damaged, unsafe, or made for something else
    │   └── AdapterInUseError       it can't be removed while requests are using it
    ├── ModelNotFoundError          no model answers to this name
    └── EngineError
        ├── EngineStartError        the engine can't be started, or died while starting
        └── EngineUnavailableError  the engine is starting, restarting or stopped; try again later

Every message gives the value, the rule and the remedy.
"""

from collections.abc import Sequence


class ServingError(Exception):
    """Anything that `serving` raises on purpose."""


class BaseModelError(ServingError):
    """The base model can't be found, or can't be served as it is."""


class AdapterError(ServingError):
    """An adapter that must not reach the engine, or that the engine refused."""


class AdapterInUseError(AdapterError):
    """An adapter can't be removed because requests are still using it."""


class ModelNotFoundError(ServingError):
    """No model answers to `name`; `available` holds the names that would have answered."""

    def __init__(self, name: str, available: Sequence[str], reason: str | None = None) -> None:
        self.name = name
        self.available = tuple(available)
        self.reason = reason
        message = reason or f"No model is called {name[:200]!r}."
        super().__init__(f"{message} Available: {', '.join(self.available) or 'none'}.")


class EngineError(ServingError):
    """The engine itself is at fault, not what it was asked for."""


class EngineStartError(EngineError):
    """The engine couldn't be started. The message holds the engine's own last words and a remedy."""


class EngineUnavailableError(EngineError):
    """The engine can't take a request now. `retry_after_s` is when asking again may help, in seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)
