"""HTTP/1.1 to an engine, no more of it than an engine needs: kept connections, and answers as they arrive.

It refuses to know what is asked and answered. httptools parses (uvicorn's parser, and vLLM's); what is written here is
the way between it and whoever reads. Why not aiohttp: benchmarks/gateway.py measures both. Interim answers (1xx) are
passed over. HEAD isn't supported: its answer would be waited for as if it had a body. An answer whose end is the
connection's end is a WireError: it can't be told from one that broke off. vLLM sends none.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import httptools

from serving.engines.vllm.wire_answer import WireAnswer, WireError

KEPT_S = 2.0
"""An unused connection is kept for so long: well below the 5 s after which vLLM closes it, so that no request meets a
connection that is just being closed."""
CONNECT_TIMEOUT_S = 5.0
_UNSAFE = re.compile(r"[\x00-\x20\x7f]")
_UNSAFE_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[tuple[asyncio.BaseTransport, asyncio.Protocol]]]
"""Opens a transport for the protocol that the given function makes."""


class WireConnection(asyncio.Protocol):
    """One connection: one request and its answer at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._answer: WireAnswer | None = None
        self._transport: asyncio.Transport | None = None
        self._keeps_alive = False
        self._unused_since_s = 0.0

    @property
    def is_fresh(self) -> bool:
        """Whether it is open, and so lately used that the engine isn't about to close it."""
        return self._transport is not None and time.monotonic() - self._unused_since_s < KEPT_S

    def send(self, request: bytes) -> WireAnswer:
        """Sends head and body; the answer is filled from now on. Raises: WireError when the connection is closed."""
        if self._transport is None:
            raise WireError("the connection was closed")
        self._answer = WireAnswer(self._loop)
        self._transport.write(request)
        return self._answer

    def leave(self) -> bool:
        """Ends the exchange. True if another can follow; else the connection is cut, and the engine notices at once."""
        answer, self._answer = self._answer, None
        if answer is not None and answer.is_read and self._keeps_alive and self._is_idle():
            self._unused_since_s = time.monotonic()
            return True
        self.close()
        return False

    def close(self) -> None:
        """Cuts the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _is_idle(self) -> bool:
        """Whether it is open with nothing left to send; an engine that answers early may never read the rest."""
        way = self._transport
        return way is not None and not way.is_closing() and way.get_write_buffer_size() == 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # nothing was asked: whatever it is, it must not be taken for the next answer
            self.close()
            return
        answer.received = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            answer.fail(WireError(f"what came is no HTTP: {error}"))
            self.close()
        else:
            answer.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.is_complete:
            self._answer.fail(WireError(f"the connection ended before the answer did ({exc or 'closed'})"))

    # httptools' callbacks

    def on_message_begin(self) -> None:
        if self._answer is not None and self._answer.is_complete:
            raise WireError("a second answer came where one was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is not None:
            self._answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._answer is not None and status >= 200:
            self._answer.status = status
        elif self._answer is not None:  # an interim answer: the other is still to come, with headers of its own
            self._answer.headers.clear()

    def on_body(self, body: bytes) -> None:
        if self._answer is not None and self._transport is not None:
            self._answer.take(body, self._transport)

    def on_message_complete(self) -> None:
        if self._answer is not None and self._answer.status:  # the parser ends an interim answer, too, as a message
            self._keeps_alive = self._parser.should_keep_alive()  # the parser forgets it with this message
            self._answer.is_complete = True


class Wire:
    """The way to one engine: as many connections as there are requests at once, kept for the next ones."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._kept: list[WireConnection] = []
        self._is_closed = False

    async def __aenter__(self) -> Wire:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes what is kept; what is in use closes when it is left."""
        self._is_closed = True
        while self._kept:
            self._kept.pop().close()

    async def ask(self, request: bytes) -> tuple[WireConnection, WireAnswer]:
        """Connection and answer, its head there. The caller gives the connection back with `leave`.

        A kept connection that breaks with nothing received was closed by the engine before it read the request: it is
        sent once more, on a new one. Raises: WireError, OSError, TimeoutError.
        """
        while self._kept:
            connection = self._kept.pop()
            if not connection.is_fresh:
                connection.close()
                continue
            try:
                return connection, await _answered(connection, request)
            except _Unanswered:
                break
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, protocol = await self._connect(WireConnection)
        connection = cast("WireConnection", protocol)
        return connection, await _answered(connection, request)

    def leave(self, connection: WireConnection) -> None:
        """Keeps the connection for the next request, or cuts it if its answer wasn't read to the end."""
        if connection.leave():
            if self._is_closed:
                connection.close()
            else:
                self._kept.append(connection)


class _Unanswered(WireError):
    """The connection ended with nothing received."""


async def _answered(connection: WireConnection, request: bytes) -> WireAnswer:
    answer = connection.send(request)
    try:
        await answer.head()
    except WireError as error:
        connection.leave()
        raise error if answer.received else _Unanswered(str(error)) from error
    except BaseException:  # the caller left: so must the request
        connection.leave()
        raise
    return answer


def request_bytes(method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """The request as it is sent. Raises: ValueError for a method, path or header that would break out of its line."""
    lines = [f"{method} {path} HTTP/1.1", "host: engine", f"content-length: {len(body or b'')}"]
    for name, value in headers.items():
        if _UNSAFE.search(name) or _UNSAFE_VALUE.search(value):
            raise ValueError(f"The header {name[:80]!r} holds a control character or a space. Leave it out.")
        lines.append(f"{name}: {value}")
    if _UNSAFE.search(method) or _UNSAFE.search(path):
        raise ValueError(f"The path {path[:80]!r} holds a control character or a space. Percent-encode it.")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")
