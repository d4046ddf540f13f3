"""vLLM's HTTP client, over its Unix socket: streams bytes through, loads and unloads adapters, translates errors.

It refuses to know who starts vLLM and what the bodies mean.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from serving.engines.vllm.http_wire import Wire, request_bytes
from serving.engines.vllm.wire_answer import WireAnswer
from serving.errors import AdapterError, EngineUnavailableError

_RETRY_AFTER_S = 5.0
_HEALTH_TIMEOUT_S = 10.0
_DEAD = re.compile(r"EngineDead|EngineCore encountered an issue")
_IN_TROUBLE = re.compile(
    r"out ?of ?memory|cannot allocate|no space left|CUDA error|HIP error|timed? ?out", re.IGNORECASE
)
"""vLLM answers 500 to a faulty adapter, too: what the engine lacks shows in the words alone."""
_JSON = {"content-type": "application/json"}
_DEATH = re.compile(rb'data: \{"error"[^\n]*(?:EngineDead|EngineCore encountered an issue)|"finish_reason":"abort"')
"""How it shows in an answer. No answer's own words can look so: in JSON their quotation marks are escaped."""


def open_session(socket: Path) -> Wire:
    """The one way to the engine on `socket`; whoever opens it closes it. Answers may take as long as they like."""

    async def connect(protocol: Callable[[], asyncio.Protocol]) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        return await asyncio.get_running_loop().create_unix_connection(protocol, str(socket))

    return Wire(connect)


class PassedResponse:
    """One answer of the engine, passed on as it comes. Implements `serving.engines.engine.EngineResponse`."""

    def __init__(self, answer: WireAnswer) -> None:
        self._answer = answer
        self._headers = _Headers(answer.headers)
        self._has_begun = False
        self._death: EngineUnavailableError | None = None

    @property
    def status(self) -> int:
        """HTTP status code."""
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields; look-ups ignore case."""
        return self._headers

    async def read(self) -> bytes:
        """The whole body. Raises: EngineUnavailableError if the engine goes away before its end."""
        return b"".join([chunk async for chunk in self.chunks()])

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, unparsed; what came meanwhile comes as one.

        Raises: EngineUnavailableError if the engine goes away before its end; `before_answer` if nothing had come.
        """
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._death:
            raise self._death
        try:
            chunk = await self._answer.next_part()
        except OSError as error:
            raise _unreachable(error, before_answer=not self._has_begun) from error
        if not chunk:
            raise StopAsyncIteration
        if (b'"error"' in chunk or b'"abort"' in chunk) and (died := _DEATH.search(chunk)):
            chunk = self._until_death(chunk, died.start())
        self._has_begun = True
        return chunk

    def _until_death(self, chunk: bytes, at: int) -> bytes:
        """The events before the one at `at`, which tells of the engine's death; that is raised for what comes next.

        vLLM goes on as if nothing were: with `[DONE]`, or with half an answer whose reason to end is `abort`.
        """
        end = chunk.rfind(b"\n\n", 0, at)
        self._death = _died(before_answer=end < 0 and not self._has_begun)
        if end < 0:
            raise self._death
        return chunk[: end + 2]


class VLLMClient:
    """Speaks to one vLLM."""

    def __init__(self, session: Wire) -> None:
        """session: from `open_session`."""
        self._session = session

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[PassedResponse]:
        """Passes a request on as it is. Leaving the context early closes the connection, so that vLLM stops generating.

        Raises: EngineUnavailableError when vLLM can't be reached, or its engine died before it answered.
        """
        with _translated():
            connection, answer = await self._session.ask(request_bytes(method, path, headers or _JSON, body))
        try:
            if answer.status == 500:
                await _check_alive(answer)
            yield PassedResponse(answer)
        finally:
            self._session.leave(connection)

    async def is_healthy(self) -> bool:
        """Whether vLLM's health check passes now: its engine answers, not the HTTP server alone."""
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT_S), self.request("GET", "/health") as response:
                await response.read()
                return response.status == 200
        except (EngineUnavailableError, TimeoutError):
            return False

    async def load_adapter(self, name: str, path: Path) -> None:
        """The adapter at `path` answers to `name` from now on.

        Raises: AdapterError when the adapter is at fault; EngineUnavailableError when the engine can't load any now.
        """
        status, answer = await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        if status == 200 or (status == 400 and "already been loaded" in answer):
            return  # a name never stands for other bytes, so what is loaded is what was asked for
        message = f"The engine refused to load {name}: {answer} Check the adapter, or train it again."
        raise _refusal(message, status, answer)

    async def unload_adapter(self, name: str) -> None:
        """`name` answers no more. Raises: AdapterError, EngineUnavailableError."""
        status, answer = await self._post("/v1/unload_lora_adapter", {"lora_name": name})
        if status not in (200, 404):
            raise _refusal(f"The engine refused to unload {name}: {answer} Try again.", status, answer)
        if name in await self._model_names():
            raise AdapterError(f"The engine still lists {name} after unloading it. Restart the server.")

    async def _model_names(self) -> list[str]:
        async with self.request("GET", "/v1/models") as response:
            return [str(model["id"]) for model in json.loads(await response.read())["data"]]

    async def _post(self, path: str, content: Mapping[str, str]) -> tuple[int, str]:
        """Status code, and the answer's message in one line."""
        async with self.request("POST", path, body=json.dumps(content).encode()) as response:
            answer = (await response.read()).decode(errors="replace")
            return response.status, _message(answer)


class _Headers(dict[str, str]):
    """Header fields by their names in lower case, found by any."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return super().get(name.lower(), default)


def _message(answer: str) -> str:
    """What vLLM says in an error body, shortened; the body itself if it isn't one."""
    with suppress(ValueError, KeyError, TypeError):
        answer = str(json.loads(answer)["error"]["message"])
    return " ".join(answer.split())[:300].rstrip(".") + "."


def _refusal(message: str, status: int, answer: str) -> AdapterError | EngineUnavailableError:
    if status in (408, 429) or status > 500 or _IN_TROUBLE.search(answer):
        return EngineUnavailableError(f"The engine can't do this now: {answer} Try again later.", _RETRY_AFTER_S)
    return AdapterError(message)


async def _check_alive(answer: WireAnswer) -> None:
    """Looks into an error's body, and leaves it to be read. Raises: EngineUnavailableError when the engine is dead."""
    content = await PassedResponse(answer).read()
    if _DEAD.search(content.decode(errors="replace")):
        raise _died()
    answer.unread(content)


def _died(*, before_answer: bool = True) -> EngineUnavailableError:
    return EngineUnavailableError(
        "The engine died and is being restarted.", _RETRY_AFTER_S, before_answer=before_answer
    )


def _unreachable(error: Exception, *, before_answer: bool) -> EngineUnavailableError:
    return EngineUnavailableError(
        f"The engine can't be reached ({type(error).__name__}); it may be restarting. Try again in a moment.",
        _RETRY_AFTER_S,
        before_answer=before_answer,
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Turns what goes wrong on the way to an answer's head into our own error."""
    try:
        yield
    except OSError as error:  # TimeoutError and WireError are of them
        raise _unreachable(error, before_answer=True) from error
