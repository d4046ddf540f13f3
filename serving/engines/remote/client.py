"""HTTP client of a remote engine: passes requests through, translates errors, lists the engine's models.

The key is sent to its own engine only and never appears in a message.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict

from serving.base_model import BaseModel
from serving.engines.engine import EngineLimits
from serving.errors import AdapterMisfitError, EngineStartError, EngineUnavailableError

MAX_CONNECTIONS = 256
"""Concurrent requests to one engine; more wait for a connection."""
POLL_CONNECTIONS = 4
"""Reserved for polling: an engine that is busy with all other connections must still be seen as up."""
CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 600.0
"""Give up after this long without a byte, like OpenAI's SDKs."""
_ADAPTER_TIMEOUT_S = 60.0
_RETRY_AFTER_S = 5.0
_KEY_RETRY_AFTER_S = 30.0
_MAX_LISTING_BYTES = 4 * 2**20
_MAX_NAME = 300
_JSON = {"content-type": "application/json"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_UNAVAILABLE = {
    502: "its gateway can't reach it",
    503: "it is overloaded or starting",
    504: "its gateway timed out",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteAddress:
    """Where a remote engine is, and the key for it."""

    id: str
    """Its id on this server."""
    url: str
    """What OpenAI's clients call `base_url`: the address before `/chat/completions`."""
    key: str | None = field(default=None, repr=False)
    """Sent as `Authorization: Bearer`."""

    @classmethod
    def parse(cls, engine_id: str, url: str, key: str | None = None) -> RemoteAddress:
        """Parse the URL of a setting; one without a path gets `/v1`. Raises: EngineStartError for an invalid URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise EngineStartError(
                f"The remote engine {engine_id} has the URL {_without_user(url)!r}, but it must look like "
                "https://host:8000/v1, the base_url of an OpenAI client. Correct remote_engines."
            )
        if parts.username or parts.password:
            raise EngineStartError(
                f"The URL of the remote engine {engine_id} contains a user name or password, which would appear in "
                f"logs. Remove it, and set the key with remote_engine_keys: {engine_id}=KEY."
            )
        if key and (not key.isascii() or not key.isprintable() or " " in key):
            raise EngineStartError(
                f"The key of the remote engine {engine_id} has a character that isn't allowed in HTTP headers. "
                "Copy it again."
            )
        if key and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            logger.warning(
                "The key of the remote engine %s is sent unencrypted. Prefer an https:// address.", engine_id
            )
        return cls(engine_id, url.rstrip("/") + ("" if parts.path.strip("/") else "/v1"), key)

    def url_for(self, path: str) -> str:
        """Return the URL for a path of our own engines, such as `/v1/chat/completions` or `/tokenize`."""
        if path.startswith("/v1/"):
            return self.url + path.removeprefix("/v1")
        return self.url.removesuffix("/v1") + path


class RemoteResponse:
    """One response, streamed through. Implements `serving.engines.engine.EngineResponse`."""

    def __init__(self, address: RemoteAddress, response: aiohttp.ClientResponse) -> None:
        self._address, self._response = address, response
        self._has_started = False
        self._headers = CIMultiDict(response.headers)
        if "content-encoding" in self._headers:  # aiohttp decodes the body, so the length no longer matches
            self._headers.popall("content-length", None)

    @property
    def status(self) -> int:
        """HTTP status code."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields; look-ups ignore case."""
        return self._headers

    async def read(self) -> bytes:
        """Return the whole body. Raises: EngineUnavailableError if the engine goes away before its end."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, unparsed. Raises: EngineUnavailableError if the engine goes away early."""
        with translate_errors(self._address, before_answer=lambda: not self._has_started):
            async for chunk in self._response.content.iter_any():
                self._has_started = True
                yield chunk


class RemoteClient:
    """The client of one remote engine. Implements `serving.engines.engine.AdapterHost`."""

    def __init__(
        self, address: RemoteAddress, session: aiohttp.ClientSession, base: BaseModel, limits: EngineLimits
    ) -> None:
        """session: from `open_session`; the caller closes it."""
        self.base, self.limits = base, limits
        self._address, self._session = address, session

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[RemoteResponse]:
        """Pass a request on unchanged. Leaving the context early closes the connection.

        Raises: EngineUnavailableError when the engine can't be reached, is overloaded, or doesn't accept our key.
        """
        url = self._address.url_for(path)
        opened = self._session.request(method, url, data=body, headers=headers or _JSON, allow_redirects=False)
        with translate_errors(self._address, before_answer=lambda: True):
            response = await opened
        try:
            if refusal := self._refusal_error(response):
                raise refusal
            yield RemoteResponse(self._address, response)
        finally:
            response.release()  # closes the connection if anything is unread

    async def model_names(self) -> tuple[str, ...]:
        """Return the models that the engine lists. Raises: EngineUnavailableError if it returns no such list."""
        async with self.request("GET", "/v1/models") as response:
            content = b""
            async for chunk in response.chunks():
                content += chunk
                if len(content) > _MAX_LISTING_BYTES:
                    break
        try:
            listed = [model["id"] for model in json.loads(content)["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise EngineUnavailableError(
                f"The remote engine {self._address.id} responded with {response.status} and no list of models. "
                "Check that its URL is the base_url of an OpenAI client.",
                _KEY_RETRY_AFTER_S,
            ) from error
        return tuple(name for name in listed if isinstance(name, str) and 0 < len(name) <= _MAX_NAME)

    async def load_adapter(self, name: str, path: Path) -> None:
        """Load the adapter at `path` under `name`; the engine must see the directory at the same path.

        Raises: AdapterMisfitError when the engine refuses it, also for the engine's options; EngineUnavailableError.
        """
        status, message = await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        if status == 200 or (status == 400 and "already been loaded" in message):
            return
        raise AdapterMisfitError(
            f"The remote engine {self._address.id} couldn't load {name} ({status}): {message} It needs this "
            "server's adapters directory at the same path, and must run with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, "
            "--enable-lora and a sufficient --max-lora-rank."
        )

    async def unload_adapter(self, name: str) -> None:
        """Unload the adapter `name`. Raises: AdapterMisfitError, EngineUnavailableError."""
        status, message = await self._post("/v1/unload_lora_adapter", {"lora_name": name})
        if status not in (200, 404):
            raise AdapterMisfitError(f"The remote engine {self._address.id} couldn't unload {name}: {message}")

    async def _post(self, path: str, content: Mapping[str, str]) -> tuple[int, str]:
        """Return the status code and the response's message on one line."""
        with translate_errors(self._address, before_answer=lambda: True):
            async with asyncio.timeout(_ADAPTER_TIMEOUT_S):
                async with self.request("POST", path, body=json.dumps(content).encode()) as response:
                    return response.status, _error_message(await response.read())

    def _refusal_error(self, response: aiohttp.ClientResponse) -> EngineUnavailableError | None:
        """Return the error for a response that the client isn't to blame for; None for one that is passed on."""
        engine, status = f"The remote engine {self._address.id}", response.status
        if status in (401, 403):
            key = "tuneloop's key" if self._address.key else "a request without a key"
            return EngineUnavailableError(
                f"{engine} rejected {key} ({status}). This server's operator must set remote_engine_keys: "
                f"{self._address.id}=KEY.",
                _KEY_RETRY_AFTER_S,
            )
        if 300 <= status < 400:
            return EngineUnavailableError(
                f"{engine} responded with a redirect ({status}), which isn't followed, to protect the key. This "
                "server's operator must set the final URL in remote_engines.",
                _KEY_RETRY_AFTER_S,
            )
        if status == 429 or status in _UNAVAILABLE:
            why = _UNAVAILABLE.get(status, "it limits our requests")
            return EngineUnavailableError(
                f"{engine} responded with {status}: {why}. Try again later.", _retry_after_s(response)
            )
        return None


def open_session(address: RemoteAddress, max_connections: int = MAX_CONNECTIONS) -> aiohttp.ClientSession:
    """Open a session with the engine; the caller closes it. Verifies certificates; no proxies, no cookies."""
    key = {"authorization": f"Bearer {address.key}"} if address.key else {}
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=max_connections),
        timeout=aiohttp.ClientTimeout(None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S),
        headers={"accept-encoding": "identity", "user-agent": "tuneloop", **key},
        cookie_jar=aiohttp.DummyCookieJar(),
    )


@contextmanager
def translate_errors(address: RemoteAddress, *, before_answer: Callable[[], bool]) -> Iterator[None]:
    """Translate network errors into EngineUnavailableError.

    before_answer: returns whether nothing of a response had arrived.
    """
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
        certificate = isinstance(error, aiohttp.ClientConnectorCertificateError)
        why = "its certificate isn't trusted" if certificate else type(error).__name__
        raise EngineUnavailableError(
            f"The remote engine {address.id} can't be reached ({why}). Try again in a moment.",
            _RETRY_AFTER_S,
            before_answer=before_answer(),
        ) from error


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    """Return the engine's Retry-After in seconds."""
    try:
        return min(max(float(response.headers["retry-after"]), 1.0), 3600.0)
    except (KeyError, ValueError):  # absent, or a date
        return _RETRY_AFTER_S


def _error_message(content: bytes) -> str:
    """Return the message of an error body on one line, shortened; the body itself if it has none."""
    message: Any = content.decode(errors="replace")
    with suppress(ValueError, KeyError, TypeError):
        message = json.loads(content)["error"]["message"]
    return " ".join(str(message).split())[:300].rstrip(".") + "."


def _without_user(url: str) -> str:
    """Return the URL with its credentials masked."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else url
