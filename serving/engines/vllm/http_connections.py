"""A minimal HTTP/1.1 client for an engine: pooled connections, and responses as they arrive.

httptools, the parser of uvicorn and vLLM, parses; this module connects it to the reader. Why not aiohttp:
benchmarks/gateway.py compares both. Interim responses (1xx) are skipped. HEAD isn't supported: the client would wait
for a body. A response that ends with the connection is an HTTPConnectionError: it can't be told from one that broke
off. vLLM sends none.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import httptools

from serving.engines.vllm.http_response import HTTPConnectionError, HTTPResponse

MAX_IDLE_S = 2.0
"""How long an unused connection is kept: well below the 5 s after which vLLM closes it, so that no request meets a
connection that is just being closed."""
CONNECT_TIMEOUT_S = 5.0
_UNSAFE = re.compile(r"[\x00-\x20\x7f]")
_UNSAFE_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[tuple[asyncio.BaseTransport, asyncio.Protocol]]]
"""Opens a transport for the protocol that the given function makes."""


class HTTPConnection(asyncio.Protocol):
    """One connection: one request and its response at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._response: HTTPResponse | None = None
        self._transport: asyncio.Transport | None = None
        self._keeps_alive = False
        self._idle_since_s = 0.0

    @property
    def is_fresh(self) -> bool:
        """Whether it is open and was used recently enough that the engine isn't about to close it."""
        return self._transport is not None and time.monotonic() - self._idle_since_s < MAX_IDLE_S

    def send(self, request: bytes) -> HTTPResponse:
        """Send head and body, and return the response to be filled. Raises: HTTPConnectionError if it is closed."""
        if self._transport is None:
            raise HTTPConnectionError("the connection was closed")
        self._response = HTTPResponse(self._loop)
        self._transport.write(request)
        return self._response

    def release(self) -> bool:
        """End the exchange. Return whether another can follow; else the connection is cut, and the engine notices."""
        response, self._response = self._response, None
        if response is not None and response.is_read and self._keeps_alive and self._is_idle():
            self._idle_since_s = time.monotonic()
            return True
        self.close()
        return False

    def close(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _is_idle(self) -> bool:
        """Whether it is open with nothing left to send; an engine that answers early may never read the rest."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and transport.get_write_buffer_size() == 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:  # nothing was requested: this must not be taken for the next response
            self.close()
            return
        response.received = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            response.fail(HTTPConnectionError(f"the response isn't valid HTTP: {error}"))
            self.close()
        else:
            response.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._response is not None and not self._response.is_complete:
            self._response.fail(
                HTTPConnectionError(f"the connection closed before the response was complete ({exc or 'closed'})")
            )

    # httptools' callbacks

    def on_message_begin(self) -> None:
        if self._response is not None and self._response.is_complete:
            raise HTTPConnectionError("received more than one response")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is not None:
            self._response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._response is not None and status >= 200:
            self._response.status = status
        elif self._response is not None:  # an interim response: the final one comes with headers of its own
            self._response.headers.clear()

    def on_body(self, body: bytes) -> None:
        if self._response is not None and self._transport is not None:
            self._response.feed(body, self._transport)

    def on_message_complete(self) -> None:
        if self._response is not None and self._response.status:  # the parser ends an interim response like a message
            self._keeps_alive = self._parser.should_keep_alive()  # the parser resets it with the next message
            self._response.is_complete = True


class ConnectionPool:
    """A connection pool of one engine: as many connections as concurrent requests, kept for reuse."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._idle: list[HTTPConnection] = []
        self._is_closed = False

    async def __aenter__(self) -> ConnectionPool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the idle connections; those in use are closed when they are released."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    async def send(self, request: bytes) -> tuple[HTTPConnection, HTTPResponse]:
        """Send the request; return the connection and its response, whose head has arrived. Release it with `release`.

        A reused connection that breaks with nothing received was closed by the engine before it read the request: it is
        sent again on a new one. Raises: HTTPConnectionError, OSError, TimeoutError.
        """
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_fresh:
                connection.close()
                continue
            try:
                return connection, await _exchange(connection, request)
            except _NoResponseError:
                break
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, protocol = await self._connect(HTTPConnection)
        connection = cast("HTTPConnection", protocol)
        return connection, await _exchange(connection, request)

    def release(self, connection: HTTPConnection) -> None:
        """Keep the connection for the next request, or cut it if its response wasn't read to the end."""
        if connection.release():
            if self._is_closed:
                connection.close()
            else:
                self._idle.append(connection)


class _NoResponseError(HTTPConnectionError):
    """The connection ended with nothing received."""


async def _exchange(connection: HTTPConnection, request: bytes) -> HTTPResponse:
    response = connection.send(request)
    try:
        await response.wait_for_head()
    except HTTPConnectionError as error:
        connection.release()
        raise error if response.received else _NoResponseError(str(error)) from error
    except BaseException:  # the caller left, so the request must end as well
        connection.release()
        raise
    return response


def request_bytes(method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Return the encoded request. Raises: ValueError for a method, path or header that would break out of its line."""
    lines = [f"{method} {path} HTTP/1.1", "host: engine", f"content-length: {len(body or b'')}"]
    for name, value in headers.items():
        if _UNSAFE.search(name) or _UNSAFE_VALUE.search(value):
            raise ValueError(f"The header {name[:80]!r} contains a control character or a space. Remove it.")
        lines.append(f"{name}: {value}")
    if _UNSAFE.search(method) or _UNSAFE.search(path):
        raise ValueError(f"The path {path[:80]!r} contains a control character or a space. Percent-encode it.")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")
