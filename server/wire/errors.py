"""The only place where a status code is chosen.

    APIError
    ├── BadRequest            400 invalid_request_error
    ├── Unauthorized          401 authentication_error
    ├── Forbidden             403 invalid_request_error
    ├── NotFound              404 invalid_request_error
    ├── Conflict              409 invalid_request_error, never retried
    ├── RequestTimeout        408 invalid_request_error
    ├── PayloadTooLarge       413 invalid_request_error
    ├── URITooLong            414 invalid_request_error
    ├── TooManyRequests       429 requests, with Retry-After
    ├── HeadersTooLarge       431 invalid_request_error
    ├── ServerError           500 server_error
    └── ServiceUnavailable    503 server_error, with Retry-After

Lower packages raise their own exceptions; `from_serving` and `from_database` map them here, most specific first.
Every error leaves as OpenAI's envelope with all four keys (https://platform.openai.com/docs/guides/error-codes).
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.responses import JSONResponse

import serving

_FAULT_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "literal_error": "invalid_value",
    "greater_than_equal": "integer_below_min_value",
    "greater_than": "integer_below_min_value",
    "less_than_equal": "integer_above_max_value",
    "less_than": "integer_above_max_value",
    "string_too_short": "string_below_min_length",
    "string_too_long": "string_above_max_length",
    "too_short": "array_below_min_length",
    "too_long": "array_above_max_length",
    "json_invalid": "invalid_json",
}
"""OpenAI's error code for each pydantic error type."""


MAX_MESSAGE = 8000
"""Longest error message, in characters: it may quote the request, which can be megabytes."""
MAX_PARAM = 300


class APIError(Exception):
    """An error that is sent to the client."""

    status = 500
    error_type = "server_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = _truncate(message, MAX_MESSAGE)
        super().__init__(self.message)
        self.code = code
        self.param = param and _truncate(param, MAX_PARAM)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error envelope."""
        return {"error": {"message": self.message, "type": self.error_type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the error as an HTTP response."""
        return JSONResponse(self.body(), self.status, self.headers)

    def event(self) -> bytes:
        """Return the error as a server-sent event, the last one of a stream that failed after its first byte."""
        return b"data: " + json.dumps(self.body()).encode() + b"\n\n"


class BadRequest(APIError):
    """The request breaks a rule; the message says which one and how to fix it."""

    status, error_type = 400, "invalid_request_error"


class Unauthorized(APIError):
    """No key, or a key that is not valid."""

    status, error_type = 401, "authentication_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


class Forbidden(APIError):
    """The caller may not do this."""

    status, error_type = 403, "invalid_request_error"


class NotFound(APIError):
    """Nothing exists under that name, id or path."""

    status, error_type = 404, "invalid_request_error"


class MethodNotAllowed(APIError):
    """The path exists, but not for this method."""

    status, error_type = 405, "invalid_request_error"


class Conflict(APIError):
    """The request conflicts with the current state. Not retried: OpenAI's SDKs would retry a 409, which never helps
    here."""

    status, error_type = 409, "invalid_request_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message, code=code, param=param, headers={"x-should-retry": "false"})


class PayloadTooLarge(APIError):
    """The body is over the size limit."""

    status, error_type = 413, "invalid_request_error"


class RequestTimeout(APIError):
    """The request took too long to arrive."""

    status, error_type = 408, "invalid_request_error"


class URITooLong(APIError):
    """The URL is too long."""

    status, error_type = 414, "invalid_request_error"


class HeadersTooLarge(APIError):
    """The header fields are too large or too many."""

    status, error_type = 431, "invalid_request_error"


class TooManyRequests(APIError):
    """The caller is over its rate limit. As with OpenAI, `type` says what there were too many of."""

    status, error_type = 429, "requests"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        headers = {
            "Retry-After": str(max(1, math.ceil(retry_after_s))),
            "retry-after-ms": str(max(1, math.ceil(retry_after_s * 1000))),  # OpenAI's SDKs read this first
        }
        super().__init__(message, code="rate_limit_exceeded", headers=headers)


class ServerError(APIError):
    """An unexpected failure. The log has the traceback under the request id; the client gets only the id."""


class ServiceUnavailable(APIError):
    """Temporarily unavailable: retrying soon may work."""

    status = 503

    def __init__(self, message: str, *, code: str = "engine_unavailable", retry_after_s: float = 2.0) -> None:
        # The SDKs give up at once when Retry-After is above 120 s, so it stays inside their window.
        retry_after = str(max(1, min(60, round(retry_after_s))))
        super().__init__(message, code=code, headers={"Retry-After": retry_after})


def _truncate(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def fault_code(kind: str) -> str:
    """Return OpenAI's code for a pydantic error type; our own error types are codes already."""
    return _FAULT_CODES.get(kind, "invalid_type" if kind.endswith(("_type", "_parsing")) else kind)


def from_serving(error: serving.ServingError) -> APIError:
    """Return the HTTP error for an exception of `serving`, most specific first."""
    match error:
        case serving.ModelNotFoundError():
            return NotFound(str(error), code="model_not_found", param="model")
        case serving.EngineUnavailableError():
            return ServiceUnavailable(str(error), retry_after_s=error.retry_after_s)
        case serving.AdapterMisfitError():
            how = "POST /v1/engines/restart or `tuneloop engines restart`"
            message = f"{error} An admin can restart the engine for it with {how}."
            return Conflict(message, code="engine_restart_required", param="model")
        case serving.AdapterInUseError():
            return Conflict(str(error), code="model_in_use", param="model")
        case serving.ParityError():
            return BadRequest(str(error), code="parity_failed", param="model")
        case serving.AdapterError():
            return BadRequest(str(error), code="adapter_not_servable", param="model")
        case _:
            return ServerError(str(error))


def from_database(error: Exception) -> APIError | None:
    """Return the HTTP error for a database exception; None if a request can't cause it."""
    match error:
        case DataError():  # a NUL character, a number too large: SQLite takes what PostgreSQL refuses
            return BadRequest(
                "The request contains a value that can't be stored: a NUL character or a number out of range. "
                "Change it.",
                code="invalid_value",
            )
        case OperationalError() | InterfaceError() | PoolTimeoutError():
            return _database_unavailable()
        case DBAPIError(connection_invalidated=True):
            return _database_unavailable()
        case _:
            return None


def from_disk(error: Exception) -> APIError | None:
    """Return the HTTP error if `error` means that the disk is full, else None."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not full and not (isinstance(error, OperationalError) and "disk is full" in str(error.orig)):
        return None
    return ServerError(
        "The server's disk is full, and nothing was stored. Its operator must free some space.",
        code="disk_full",
        headers={"x-should-retry": "false"},
    )


def _database_unavailable() -> ServiceUnavailable:
    return ServiceUnavailable(
        "The database can't be reached now. Try again later; the server's log has the reason.",
        code="database_unavailable",
    )


def from_engine(status: int, body: bytes) -> APIError:
    """Return OpenAI's error for vLLM's error response, which has the status in `code` and class names in `type`."""
    message, param = _engine_message(body)
    if status == 404:
        return NotFound(message, code="model_not_found", param=param or "model")
    if 400 <= status < 500:
        return BadRequest(message, param=param)
    return ServerError(f"The engine failed on this request: {message}")


def _engine_message(body: bytes) -> tuple[str, str | None]:
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return (body.decode("utf-8", "replace").strip()[:500] or "it gave no reason"), None
    error = content.get("error", content)
    if not isinstance(error, dict):
        return str(error), None
    param = error.get("param")
    return str(error.get("message") or error.get("detail") or "it gave no reason"), param if isinstance(
        param, str
    ) else None
