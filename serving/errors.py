"""What can go wrong between a model name and its tokens.

It refuses to know HTTP status codes: `server/wire/errors.py` maps these.

    ServingError
    ├── BaseModelError              the base model can't be found or isn't one that can be served
    ├── AdapterError                an adapter is damaged, unsafe, or made for something else
    │   ├── AdapterInUseError       it can't be removed while requests are using it
    │   ├── AdapterMisfitError      it fits the base, but not the engine as it was started
    │   ├── ParityError             the engine answers otherwise than the adapter was trained to
    │   ├── AdapterUncheckedError   the parity gate couldn't judge it here and now
    │   ├── AdapterNameError        it can't have this name; NameTakenError: another has it, or had it
    │   └── ArchiveError            what was uploaded can't be unpacked
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


class AdapterMisfitError(AdapterError):
    """An adapter that a restart of the engine would make room for, such as one of a larger rank."""


class ParityError(AdapterError):
    """The parity gate refused an adapter: it stays unpublished. The message holds the gate's reasons."""


class AdapterUncheckedError(AdapterError):
    """The parity gate had nothing to compare an adapter with: it stays unpublished, and may be judged later."""


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
    """The engine can't take a request now. `retry_after_s` is when asking again may help, in seconds.

    before_answer: nothing of an answer had come when the engine went away, so the request may be sent once more.
    """

    def __init__(self, message: str, retry_after_s: float, *, before_answer: bool = False) -> None:
        self.retry_after_s = retry_after_s
        self.before_answer = before_answer
        super().__init__(message)
