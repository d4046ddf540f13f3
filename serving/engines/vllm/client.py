"""Client of vLLM's HTTP API over its Unix socket: streams bytes, loads and unloads adapters, translates errors."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from serving.engines.vllm.http_connections import ConnectionPool, request_bytes
from serving.engines.vllm.http_response import HTTPResponse
from serving.errors import AdapterError, EngineUnavailableError

_RETRY_AFTER_S = 5.0
_HEALTH_TIMEOUT_S = 10.0
_DEAD = re.compile(r"EngineDead|EngineCore encountered an issue")
_IN_TROUBLE = re.compile(
    r"out ?of ?memory|cannot allocate|no space left|CUDA error|HIP error|timed? ?out", re.IGNORECASE
)
"""vLLM answers 500 for a faulty adapter, too: a lack of resources shows in the message only."""
_JSON = {"content-type": "application/json"}
_DEATH = re.compile(rb'data: \{"error"[^\n]*(?:EngineDead|EngineCore encountered an issue)|"finish_reason":"abort"')
"""How the engine's death shows in a response. Generated text can't match: in JSON its quotation marks are escaped."""


def open_session(socket: Path) -> ConnectionPool:
    """Return a connection pool for the engine on `socket`; the caller closes it. Responses have no time limit."""

    async def connect(protocol: Callable[[], asyncio.Protocol]) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        return await asyncio.get_running_loop().create_unix_connection(protocol, str(socket))

    return ConnectionPool(connect)


class VLLMResponse:
    """One response of the engine, streamed through. Implements `serving.engines.engine.EngineResponse`."""

    def __init__(self, answer: HTTPResponse, on_break: Callable[[], Awaitable[None]] | None = None) -> None:
        """on_break: Awaited before a body that breaks off raises."""
        self._response = answer
        self._on_break = on_break
        self._headers = _Headers(answer.headers)
        self._has_started = False
        self._death: EngineUnavailableError | None = None

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

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, unparsed; parts that arrived in the meantime are joined.

        Raises: EngineUnavailableError if the engine goes away before its end; `before_answer` if nothing had arrived.
        """
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._read_chunk()
        except EngineUnavailableError:
            if self._on_break:
                await self._on_break()
            raise

    async def _read_chunk(self) -> bytes:
        if self._death:
            raise self._death
        try:
            chunk = await self._response.read_part()
        except OSError as error:
            raise _unreachable_error(error, before_answer=not self._has_started) from error
        if not chunk:
            raise StopAsyncIteration
        if (b'"error"' in chunk or b'"abort"' in chunk) and (died := _DEATH.search(chunk)):
            chunk = self._cut_at_death(chunk, died.start())
        self._has_started = True
        return chunk

    def _cut_at_death(self, chunk: bytes, at: int) -> bytes:
        """Return the events before the one at `at`, which reports the engine's death; the next read raises the error.

        vLLM carries on regardless: with `[DONE]`, or with half an answer whose finish_reason is `abort`.
        """
        end = chunk.rfind(b"\n\n", 0, at)
        self._death = _death_error(before_answer=end < 0 and not self._has_started)
        if end < 0:
            raise self._death
        return chunk[: end + 2]


class VLLMClient:
    """The client of one vLLM process."""

    def __init__(self, session: ConnectionPool) -> None:
        """session: from `open_session`."""
        self._session = session

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        on_break: Callable[[], Awaitable[None]] | None = None,
    ) -> AsyncIterator[VLLMResponse]:
        """Pass a request on unchanged. Leaving the context early closes the connection, so vLLM stops generating.

        `on_break` is awaited before a body that breaks off raises.

        Raises: EngineUnavailableError when vLLM can't be reached, or its engine died before it answered.
        """
        with _translate_errors():
            connection, answer = await self._session.send(request_bytes(method, path, headers or _JSON, body))
        try:
            if answer.status == 500:
                await _check_alive(answer)
            yield VLLMResponse(answer, on_break)
        finally:
            self._session.release(connection)

    async def is_healthy(self) -> bool:
        """Return whether vLLM's health check passes: the engine core answers, not just the HTTP server."""
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT_S), self.request("GET", "/health") as response:
                await response.read()
                return response.status == 200
        except (EngineUnavailableError, TimeoutError):
            return False

    async def read_max_model_len(self) -> int | None:
        """Return the maximum tokens of prompt and answer together; None if vLLM doesn't say.

        Raises: EngineUnavailableError.
        """
        async with self.request("GET", "/v1/models") as response:
            listed = json.loads(await response.read())["data"]
        found = listed[0].get("max_model_len") if listed else None
        return found if isinstance(found, int) else None

    async def load_adapter(self, name: str, path: Path) -> None:
        """Load the adapter at `path` under `name`.

        Raises: AdapterError when the adapter is at fault; EngineUnavailableError when the engine can't load it now.
        """
        status, answer = await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        if status == 200 or (status == 400 and "already been loaded" in answer):
            return  # a name never refers to other bytes, so what is loaded is what was requested
        message = f"The engine couldn't load {name}: {answer} Check the adapter, or train it again."
        raise _refusal_error(message, status, answer)

    async def unload_adapter(self, name: str) -> None:
        """Unload the adapter `name`. Raises: AdapterError, EngineUnavailableError."""
        status, answer = await self._post("/v1/unload_lora_adapter", {"lora_name": name})
        if status not in (200, 404):
            raise _refusal_error(f"The engine couldn't unload {name}: {answer} Try again.", status, answer)
        if name in await self._model_names():
            raise AdapterError(f"The engine still lists {name} after unloading it. Restart the server.")

    async def _model_names(self) -> list[str]:
        async with self.request("GET", "/v1/models") as response:
            return [str(model["id"]) for model in json.loads(await response.read())["data"]]

    async def _post(self, path: str, content: Mapping[str, str]) -> tuple[int, str]:
        """Return the status code and the response's message on one line."""
        async with self.request("POST", path, body=json.dumps(content).encode()) as response:
            answer = (await response.read()).decode(errors="replace")
            return response.status, _error_message(answer)


class _Headers(dict[str, str]):
    """Header fields with lower-case names; look-ups ignore case."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return super().get(name.lower(), default)


def _error_message(answer: str) -> str:
    """Return the message of an error body, shortened; the body itself if it has none."""
    with suppress(ValueError, KeyError, TypeError):
        answer = str(json.loads(answer)["error"]["message"])
    return " ".join(answer.split())[:300].rstrip(".") + "."


def _refusal_error(message: str, status: int, answer: str) -> AdapterError | EngineUnavailableError:
    if status in (408, 429) or status > 500 or _IN_TROUBLE.search(answer):
        return EngineUnavailableError(f"The engine can't do this now: {answer} Try again later.", _RETRY_AFTER_S)
    return AdapterError(message)


async def _check_alive(answer: HTTPResponse) -> None:
    """Inspect an error's body without consuming it. Raises: EngineUnavailableError when the engine is dead."""
    content = await VLLMResponse(answer).read()
    if _DEAD.search(content.decode(errors="replace")):
        raise _death_error()
    answer.push_back(content)


def _death_error(*, before_answer: bool = True) -> EngineUnavailableError:
    return EngineUnavailableError(
        "The engine died and is being restarted.", _RETRY_AFTER_S, before_answer=before_answer
    )


def _unreachable_error(error: Exception, *, before_answer: bool) -> EngineUnavailableError:
    return EngineUnavailableError(
        f"The engine can't be reached ({type(error).__name__}); it may be restarting. Try again in a moment.",
        _RETRY_AFTER_S,
        before_answer=before_answer,
    )


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Translate errors before the response's head into EngineUnavailableError."""
    try:
        yield
    except OSError as error:  # includes TimeoutError and HTTPConnectionError
        raise _unreachable_error(error, before_answer=True) from error
