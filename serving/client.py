"""vLLM's HTTP client, over its Unix socket: streams bytes through, loads and unloads adapters, translates errors.

It refuses to know who starts vLLM and what the bodies mean.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiohttp

from serving.errors import AdapterError, EngineUnavailableError

_BASE_URL = "http://engine"
_RETRY_AFTER_S = 5.0
_HEALTH_TIMEOUT = aiohttp.ClientTimeout(total=10)
_DEAD = re.compile(r"EngineDead|EngineCore encountered an issue")
_IN_TROUBLE = re.compile(
    r"out ?of ?memory|cannot allocate|no space left|CUDA error|HIP error|timed? ?out", re.IGNORECASE
)
"""vLLM answers 500 to a faulty adapter, too: what the engine lacks shows in the words alone."""


def open_session(socket: Path) -> aiohttp.ClientSession:
    """The one session for the engine on `socket`; whoever opens it closes it. Answers may take as long as they like.

    Each request gets a connection of its own: 0.3 ms more, and a generation, which can't be sent twice, never meets a
    kept connection that the engine is just closing.
    """
    return aiohttp.ClientSession(
        _BASE_URL,
        connector=aiohttp.UnixConnector(path=str(socket), limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        auto_decompress=False,
    )


class PassedResponse:
    """One answer of the engine, passed on as it comes. Implements `serving.engine.EngineResponse`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        """HTTP status code."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields; look-ups ignore case."""
        return self._response.headers

    async def read(self) -> bytes:
        """The whole body. Raises: EngineUnavailableError if the engine goes away before its end."""
        with _translated():
            return await self._response.read()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, unparsed. Raises: EngineUnavailableError if the engine goes away before its end."""
        with _translated():
            async for chunk in self._response.content.iter_any():
                yield chunk


class VLLMClient:
    """Speaks to one vLLM."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """session: from `open_session`."""
        self._session = session

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[PassedResponse]:
        """Passes a request on as it is. Leaving the context early closes the connection, so that vLLM stops generating.

        Raises: EngineUnavailableError when vLLM can't be reached.
        """
        with _translated():
            response = await self._session.request(
                method, path, data=body, headers=headers or {"content-type": "application/json"}
            )
        try:
            yield PassedResponse(response)
        finally:
            if response.content.at_eof():
                response.release()
            else:
                response.close()

    async def is_healthy(self) -> bool:
        """Whether vLLM's health check passes now: its engine answers, not the HTTP server alone."""
        try:
            async with self._session.get("/health", timeout=_HEALTH_TIMEOUT) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
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


def _message(answer: str) -> str:
    """What vLLM says in an error body, shortened; the body itself if it isn't one."""
    with suppress(ValueError, KeyError, TypeError):
        answer = str(json.loads(answer)["error"]["message"])
    return " ".join(answer.split())[:300].rstrip(".") + "."


def _refusal(message: str, status: int, answer: str) -> AdapterError | EngineUnavailableError:
    if _DEAD.search(answer):
        return EngineUnavailableError("The engine died and is being restarted.", _RETRY_AFTER_S)
    if status in (408, 429) or status > 500 or _IN_TROUBLE.search(answer):
        return EngineUnavailableError(f"The engine can't do this now: {answer} Try again later.", _RETRY_AFTER_S)
    return AdapterError(message)


@contextmanager
def _translated() -> Iterator[None]:
    """Turns the HTTP client's own errors into ours."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise EngineUnavailableError(
            f"The engine can't be reached ({type(error).__name__}); it may be restarting. Try again in a moment.",
            _RETRY_AFTER_S,
        ) from error
