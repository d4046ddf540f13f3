"""The exceptions of `serving`. `server/wire/errors.py` maps them to HTTP status codes.

    ServingError
    ├── BaseModelError              the base model can't be found or isn't one that can be served
    ├── AdapterError                an adapter is damaged, unsafe, or made for something else
    │   ├── AdapterInUseError       it can't be removed while requests are using it
    │   ├── AdapterMisfitError      it fits the base, but not the engine as it was started
    │   ├── ParityError             the engine's answers differ from those that the adapter was trained to give
    │   ├── AdapterUncheckedError   the parity gate couldn't check it here and now
    │   ├── AdapterNameError        its name isn't allowed; NameTakenError: the name is or was in use
    │   └── ArchiveError            an uploaded archive can't be unpacked
    ├── ModelNotFoundError          no model has this name
    └── EngineError
        ├── EngineStartError        the engine can't be started, or died while starting
        └── EngineUnavailableError  the engine is starting, restarting or stopped; try again later

Every message gives the value, the rule and the remedy. A file's or a tensor's name may be a megabyte long, reverse the
text direction, or contain a lone surrogate, which JSON can't carry to the client: `quote` makes it fit for a message.
"""

from collections.abc import Sequence

MOST_QUOTED = 120


class ServingError(Exception):
    """Anything that `serving` raises on purpose."""


class BaseModelError(ServingError):
    """The base model can't be found, or can't be served as it is."""


class AdapterError(ServingError):
    """An adapter that must not reach the engine, or that the engine refused."""


class AdapterInUseError(AdapterError):
    """An adapter can't be removed because requests are still using it."""


class AdapterMisfitError(AdapterError):
    """An adapter that only a restart of the engine would make room for, such as one of a larger rank."""


class ParityError(AdapterError):
    """The parity gate rejected an adapter: it stays unpublished. The message holds the gate's reasons."""


class AdapterUncheckedError(AdapterError):
    """The parity gate had nothing to compare an adapter with: it stays unpublished, and may be checked later."""


class ModelNotFoundError(ServingError):
    """No model has the name `name`; `available` holds the names that exist."""

    def __init__(self, name: str, available: Sequence[str], reason: str | None = None) -> None:
        self.name = name
        self.available = tuple(available)
        self.reason = reason
        message = reason or f"There is no model {name[:200]!r}."
        super().__init__(f"{message} Available: {', '.join(self.available) or 'none'}.")


class EngineError(ServingError):
    """The engine itself is at fault, not the request."""


class EngineStartError(EngineError):
    """The engine couldn't be started. The message holds the engine's own last error and a remedy."""


class EngineMemoryError(EngineStartError):
    """There isn't enough free memory to start the engine now; there may be later, when a job has ended."""


class EngineUnavailableError(EngineError):
    """The engine can't take a request now. `retry_after_s` is when a retry may succeed, in seconds.

    before_answer: nothing of a response had arrived when the engine went away, so the request may be retried.
    """

    def __init__(self, message: str, retry_after_s: float, *, before_answer: bool = False) -> None:
        self.retry_after_s = retry_after_s
        self.before_answer = before_answer
        super().__init__(message)


def quote(text: object) -> str:
    """Return the untrusted `text` for a message: at most 120 characters, unprintable ones escaped."""
    whole = str(text)
    cut = whole[:MOST_QUOTED]
    plain = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in cut)
    return plain + ("…" if len(whole) > MOST_QUOTED else "")


def quote_value(value: object) -> str:
    """Return a value from a JSON file as its Python repr, shortened in the same way."""
    return quote(repr(value))
