"""Streams chat answers as fast as they come and counts them, cheaply: on a small machine the load takes from the rest.

It speaks HTTP/1.1 by hand over kept connections, and looks at no more of an answer than its events.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
_END = b"0\r\n\r\n"

Address = int | Path
"""A port of this machine, or a Unix socket."""


@dataclass(frozen=True)
class Load:
    """What so many streams at once got."""

    tokens: int
    """One an event with content or a reason to finish."""
    seconds: float
    first_token_s: list[float]
    """From each request to its first event."""

    @property
    def tokens_per_s(self) -> float:
        """All streams together."""
        return self.tokens / self.seconds


class Stream(asyncio.Protocol):
    """One kept connection that asks, and counts the events of the answer."""

    def __init__(self) -> None:
        self._answered: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        self._transport = transport  # type: ignore[assignment]

    @property
    def is_open(self) -> bool:
        """Whether it can be asked; servers close what is unused for some seconds."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> tuple[int, float]:
        """How many events the answer had, and the seconds until the first. Raises: ConnectionError."""
        assert self._transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self._events, self._first_s, self._asked_s, self._seen = 0, 0.0, time.perf_counter(), b""
        self._transport.write(request)
        return await self._answered, self._first_s

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        events = data.count(b"data: {")
        if events and not self._first_s:
            self._first_s = time.perf_counter() - self._asked_s
        self._events += events
        self._seen = (self._seen + data)[-len(_END) :] if len(data) < len(_END) else data
        if self._answered is not None and not self._answered.done():
            if not events and b" 200 OK" not in data and data.startswith(b"HTTP/1.1 "):
                self._answered.set_exception(ConnectionError(data[:500].decode(errors="replace")))
            elif self._seen.endswith(_END):
                self._answered.set_result(self._events)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionError(f"cut: {exc}"))

    def close(self) -> None:
        """Leave."""
        assert self._transport is not None
        self._transport.close()


def chat_request(model: str, max_tokens: int) -> bytes:
    """A streamed chat of exactly so many tokens, as it goes over the wire."""
    body = json.dumps(
        {"model": model, "messages": QUESTION, "max_tokens": max_tokens, "stream": True, "ignore_eos": True}
    ).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


async def open_stream(address: Address) -> Stream:
    """A connection to whoever listens there."""
    loop = asyncio.get_running_loop()
    if isinstance(address, Path):
        return (await loop.create_unix_connection(Stream, str(address)))[1]
    return (await loop.create_connection(Stream, "127.0.0.1", address))[1]


async def load(address: Address, models: list[str], streams: int, seconds: float, max_tokens: int = 128) -> Load:
    """Asks with so many streams for about so many seconds; the streams take the models in turn."""
    until_s = time.perf_counter() + seconds
    tokens, firsts = 0, []

    async def one(model: str) -> None:
        nonlocal tokens
        stream = await open_stream(address)
        while time.perf_counter() < until_s:
            events, first_s = await stream.ask(chat_request(model, max_tokens))
            tokens += events - 1  # the first names the role
            firsts.append(first_s)
        stream.close()

    begin_s = time.perf_counter()
    await asyncio.gather(*(one(models[number % len(models)]) for number in range(streams)))
    return Load(tokens, time.perf_counter() - begin_s, firsts)
