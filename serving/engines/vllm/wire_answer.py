"""One answer on its way: filled by its connection, emptied by whoever reads it, never more of it in memory than a bit.

It refuses to know HTTP and connections; `http_wire` fills it.
"""

from __future__ import annotations

import asyncio

HIGH_WATER_BYTES = 256 * 1024
"""With so much unread, no more is taken from the engine: a slow reader must not fill the memory."""


class WireError(ConnectionError):
    """The connection ended before the answer did, or what came is no HTTP. The message says at which point."""


class WireAnswer:
    """One answer, filled by its connection and emptied by whoever reads it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        """HTTP status code; 0 until the head is there."""
        self.headers: dict[str, str] = {}
        """Header fields, their names in lower case."""
        self.is_complete = False
        """Whether all of it has come; it may not have been read yet: see `is_read`."""
        self.received = False
        """Whether anything of it has come, be it a part of the head."""
        self._loop = loop
        self._parts: list[bytes] = []
        self._unread_bytes = 0
        self._error: WireError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def is_read(self) -> bool:
        """Whether all of it has come and been read."""
        return self.is_complete and not self._parts

    async def head(self) -> None:
        """Returns when status and headers are there. Raises: WireError."""
        while not self.status:
            await self._more()

    async def next_part(self) -> bytes:
        """What has come of the body since the last call, joined; b"" at its end. Raises: WireError."""
        while not self._parts:
            if self.is_complete:
                return b""
            await self._more()
        parts, self._parts = self._parts, []
        if self._unread_bytes > HIGH_WATER_BYTES and self._transport is not None:
            self._transport.resume_reading()
        self._unread_bytes = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def unread(self, part: bytes) -> None:
        """Puts back what was read, to be read again."""
        if part:
            self._parts.insert(0, part)

    def take(self, part: bytes, transport: asyncio.Transport) -> None:
        """More of the body has come."""
        self._parts.append(part)
        before, self._unread_bytes = self._unread_bytes, self._unread_bytes + len(part)
        if before <= HIGH_WATER_BYTES < self._unread_bytes:
            self._transport = transport
            transport.pause_reading()

    def fail(self, error: WireError) -> None:
        """Nothing more will come; what has come can still be read."""
        self._error = error
        self.wake()

    def wake(self) -> None:
        """Lets the reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
