"""The pages' HTTP client for tuneloop; turns every failure into a `UIError`.

Owns HTTP: paths, the key's header, server-sent events, the kinds of failure. Knows nothing of pages, languages
or Gradio.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

ProblemKind = Literal[
    "unreachable", "unauthorized", "engine_down", "model_not_found", "too_long", "too_busy", "already_rated",
    "cut_off", "wrong_model", "empty_answers", "not_admin", "last_admin", "too_few_models", "too_few_pairs",
    "campaign_gone", "rejected", "server_error",
]  # fmt: skip
Readiness = Literal["ready", "starting", "down", "unreachable"]

_BY_CODE: Mapping[str, ProblemKind] = {
    "invalid_api_key": "unauthorized",
    "engine_unavailable": "engine_down",
    "engine_failed": "engine_down",
    "answer_broken_off": "cut_off",
    "wrong_model_answered": "wrong_model",
    "empty_answers": "empty_answers",
    "model_not_found": "model_not_found",
    "context_length_exceeded": "too_long",
    "rate_limit_exceeded": "too_busy",
    "too_many_inspections": "too_busy",
    "inspection_timeout": "too_busy",
    "already_rated": "already_rated",
    "too_few_models": "too_few_models",
    "too_few_pairs": "too_few_pairs",
    "campaign_not_found": "campaign_gone",
    "admin_key_required": "not_admin",
    "last_admin_key": "last_admin",
}
_BY_STATUS: Mapping[int, ProblemKind] = {
    401: "unauthorized",
    413: "too_long",
    429: "too_busy",
    502: "engine_down",
    503: "engine_down",
    504: "engine_down",
}
# An engine that loads an adapter, or has a queue, may take minutes until its first token.
_STREAM_TIMEOUT = httpx.Timeout(connect=5.0, read=300.0, write=30.0, pool=5.0)
_CALL_TIMEOUT = httpx.Timeout(15.0, connect=5.0)


@dataclass(frozen=True)
class Problem:
    """What went wrong, in a form that a page can translate."""

    kind: ProblemKind
    """Determines the text and the remedy."""
    detail: str = ""
    """The server's message, or the cause below HTTP; may be empty."""


class UIError(Exception):
    """A call to the server failed; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.kind}: {problem.detail}")
        self.problem = problem


@dataclass(frozen=True)
class Model:
    """One entry of `GET /v1/models`."""

    name: str
    """Name for `model` in requests."""
    parent: str | None
    """The base model's name for a tuned model; None for a base."""


class ServerClient:
    """The calls of the pages. Safe to share: it keeps no connection and no key between calls."""

    def __init__(self, server_url: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._server_url = server_url.rstrip("/")
        self._transport = transport
        # Created once: reading the system's certificates takes tens of milliseconds, too long for the event loop.
        self._ssl_context = ssl.create_default_context()

    async def readiness(self) -> Readiness:
        """Return whether the engine answers; never raises: "unreachable" is a result, too."""
        try:
            async with self._open("", _CALL_TIMEOUT) as http:
                response = await http.get("/readyz")
        except httpx.HTTPError:
            return "unreachable"
        if response.status_code == 200:
            return "ready"
        return "starting" if _json_object(response.content).get("status") == "starting" else "down"

    async def models(self, api_key: str) -> list[Model]:
        """Return the served models, base first.

        Raises:
            UIError: the server can't be reached or refuses.
        """
        page = await self.call("GET", "/v1/models", api_key)
        return [Model(entry["id"], entry.get("parent")) for entry in page.get("data", [])]

    async def call(
        self,
        method: str,
        path: str,
        api_key: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        timeout_s: float = 15.0,
    ) -> dict[str, Any]:
        """Return the JSON object at `path` (from `/v1` on); names with None in `query` are left out.

        Raises:
            UIError: the server can't be reached or refuses.
        """
        return _json_object(await self.fetch(method, path, api_key, body, query, timeout_s))

    async def fetch(
        self,
        method: str,
        path: str,
        api_key: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        timeout_s: float = 15.0,
    ) -> bytes:
        """Return the bytes at `path`; otherwise like `call`.

        Raises:
            UIError: the server can't be reached or refuses.
        """
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            async with self._open(api_key, httpx.Timeout(timeout_s, connect=5.0)) as http:
                response = await http.request(method, path, params=asked, **_json_of(body))
        except httpx.HTTPError as error:
            raise UIError(Problem("unreachable", str(error) or type(error).__name__)) from error
        if response.status_code >= 400:
            raise UIError(problem_of(response.status_code, response.content))
        return response.content

    async def stream(self, path: str, api_key: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Yield the events of a POST to `path`. Closing the iterator closes the connection, which ends the work.

        Raises:
            UIError: the request is refused, or the stream ends before `[DONE]`.
        """
        try:
            async with (
                self._open(api_key, _STREAM_TIMEOUT) as http,
                http.stream("POST", path, **_json_of(body)) as response,
            ):
                if response.status_code >= 400:
                    raise UIError(problem_of(response.status_code, await response.aread()))
                async for event in read_events(response.aiter_bytes()):
                    yield event
        except httpx.ConnectError as error:
            raise UIError(Problem("unreachable", str(error))) from error
        except httpx.HTTPError as error:
            raise UIError(Problem("cut_off", str(error) or type(error).__name__)) from error

    def _open(self, api_key: str, timeout: httpx.Timeout) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._server_url,
            headers=_key_header(api_key),
            timeout=timeout,
            verify=self._ssl_context,
            trust_env=False,  # ignore proxies from the environment between a page and its own server
            transport=self._transport,
        )


def _json_of(body: Mapping[str, Any] | None) -> dict[str, Any]:
    # In ASCII: a lone surrogate, which a browser can send, has no UTF-8; the server reports it.
    if body is None:
        return {}
    return {"content": json.dumps(body).encode(), "headers": {"Content-Type": "application/json"}}


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any]]:
    """Yield the JSON of each `data:` line up to `[DONE]`.

    Lines are split only at LF: a model may write U+2028 or U+0085, where other splitters would cut the JSON.

    Raises:
        UIError: the server sent an error object, or the stream ended without `[DONE]`.
    """
    pending = b""
    async for chunk in chunks:
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            content = line.removeprefix(b"data:").strip()
            if content == b"[DONE]":
                return
            event = _json_object(content)
            if "error" in event and "type" not in event:
                raise UIError(problem_of_error(event["error"]))
            yield event
    raise UIError(Problem("cut_off"))


def problem_of(status: int, content: bytes) -> Problem:
    """Return the problem of an HTTP error response."""
    error = _json_object(content).get("error")
    if not isinstance(error, dict):
        error = {"message": f"HTTP {status}"}
    return problem_of_error(error, status)


def problem_of_error(error: Mapping[str, Any], status: int | None = None) -> Problem:
    """Return the problem of an OpenAI error object: by its `code`, the HTTP status, or its type."""
    detail = str(error.get("message") or "")
    kind = _BY_CODE.get(str(error.get("code"))) or (_BY_STATUS.get(status) if status else None)
    if kind is None:
        kind = "rejected" if error.get("type") == "invalid_request_error" else "server_error"
    return Problem(kind, detail)


def _key_header(api_key: str) -> dict[str, str]:
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise UIError(
            Problem("unauthorized", "API keys contain only printable ASCII characters; this one contains others.")
        )
    return {"Authorization": f"Bearer {api_key}"}


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
