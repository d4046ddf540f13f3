"""One response in transit: filled by its connection, emptied by its reader, with bounded memory.

`http_connections` fills it.
"""

from __future__ import annotations

import asyncio

HIGH_WATER_BYTES = 256 * 1024
"""With this much unread, reading from the engine pauses: a slow reader must not fill the memory."""


class HTTPConnectionError(ConnectionError):
    """The connection ended before the response did, or the data isn't HTTP. The message says at which point."""


class HTTPResponse:
    """One response, filled by its connection and emptied by its reader."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        """HTTP status code; 0 until the head has arrived."""
        self.headers: dict[str, str] = {}
        """Header fields, names in lower case."""
        self.is_complete = False
        """Whether all of it has arrived; it may not have been read yet: see `is_read`."""
        self.received = False
        """Whether anything has arrived, even part of the head."""
        self._loop = loop
        self._parts: list[bytes] = []
        self._unread_bytes = 0
        self._error: HTTPConnectionError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def is_read(self) -> bool:
        """Whether all of it has arrived and been read."""
        return self.is_complete and not self._parts

    async def wait_for_head(self) -> None:
        """Wait for status and headers. Raises: HTTPConnectionError."""
        while not self.status:
            await self._wait_for_more()

    async def read_part(self) -> bytes:
        """Return the body's bytes since the last call, joined; b"" at its end. Raises: HTTPConnectionError."""
        while not self._parts:
            if self.is_complete:
                return b""
            await self._wait_for_more()
        parts, self._parts = self._parts, []
        if self._unread_bytes > HIGH_WATER_BYTES and self._transport is not None:
            self._transport.resume_reading()
        self._unread_bytes = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def push_back(self, part: bytes) -> None:
        """Put back what was read, to be read again."""
        if part:
            self._parts.insert(0, part)

    def feed(self, part: bytes, transport: asyncio.Transport) -> None:
        """Add a part of the body."""
        self._parts.append(part)
        before, self._unread_bytes = self._unread_bytes, self._unread_bytes + len(part)
        if before <= HIGH_WATER_BYTES < self._unread_bytes:
            self._transport = transport
            transport.pause_reading()

    def fail(self, error: HTTPConnectionError) -> None:
        """Set the error: nothing more will arrive; what has arrived can still be read."""
        self._error = error
        self.wake()

    def wake(self) -> None:
        """Wake the reader."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait_for_more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
