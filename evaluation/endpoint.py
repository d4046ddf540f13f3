"""Client of a chat endpoint in the OpenAI wire format."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import aiohttp

ANSWER_TIMEOUT_S = 300
"""Time limit of one whole answer: a small machine under load is slow, a silent one is broken."""


class EndpointError(Exception):
    """The endpoint cannot be reached, or answered with an error; the message says which, and where."""


class ChatEndpoint:
    """`POST {base_url}/chat/completions`, greedy."""

    def __init__(self, base_url: str, *, api_key: str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def answer(self, model: str, messages: list[dict[str, Any]], *, max_tokens: int = 256) -> str:
        """Return the model's greedy answer.

        Raises:
            EndpointError: the endpoint is unreachable or returned an error.
        """
        if self._session is None:
            raise EndpointError("Use ChatEndpoint in an `async with` block: it holds connections.")
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": max_tokens}
        url = f"{self.base_url}/chat/completions"
        try:
            async with self._session.post(url, json=body) as response:
                content = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise EndpointError(
                f"{url} can't be reached or didn't respond with JSON: {error}. Check that the server is running there."
            ) from error
        if response.status != 200:
            raise EndpointError(f"{url} responded with {response.status} for {model!r}: {_message(content)}")
        return content["choices"][0]["message"]["content"] or ""


def _message(content: Any) -> str:
    error = content.get("error") if isinstance(content, dict) else None
    return str(error.get("message")) if isinstance(error, dict) else str(content)[:300]
