"""uvicorn's httptools protocol for HTTP/1.1, with limits on everything before and between bodies.

It limits how much of a request is received before the app sees it, and how long that may take. uvicorn doesn't do that
with httptools: a header field grows as long as bytes arrive, is copied each time, and blocks the whole server.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.wire.errors import APIError, BadRequest, HeadersTooLarge, RequestTimeout, URITooLong

MAX_HEAD_BYTES = 64 * 2**10
"""Request line and header fields together, as in h11; also trailers, and data between two chunks of a body. Proxies
pass on 8 to 32 KiB."""
MAX_FIELDS = 256
"""Header fields of one request. Browsers send some 20, proxies add a handful."""
MAX_URL_BYTES = 16 * 2**10
"""The longest URL that is used here has a model's name or a page's cursor in it."""
HEAD_TIMEOUT_S = 60.0
"""From the start of a connection, or the first byte of a later request, to the end of its header fields."""
BODY_TIMEOUT_S = 60.0
"""Between two chunks of a body; otherwise a sender could keep a request open forever."""
LINGER_S = 1.0
"""A refused client may still be sending: if closed at once, it would see a broken connection instead of the error."""
_UPGRADE = re.compile(rb"(^|\r\n)upgrade:", re.IGNORECASE)


class BoundedHTTP(HttpToolsProtocol):
    """One connection. A request over a limit gets an error in OpenAI's envelope, and the connection is closed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unfinished_bytes = 0
        """Bytes received since the last complete head, body chunk or request."""
        self._fields = 0
        self._is_in_head = self._is_in_body = False
        self._fault: APIError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        """When the last bytes arrived, on the loop's clock."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._on_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process the data in pieces, so that at most two of them are received beyond the limit."""
        for start in range(0, len(data), MAX_HEAD_BYTES):
            if self._fault is not None or self.transport.is_closing():
                return
            piece = data if len(data) <= MAX_HEAD_BYTES else data[start : start + MAX_HEAD_BYTES]
            self._unfinished_bytes += len(piece)
            super().data_received(piece if self._is_in_body else _remove_upgrade(piece))
            if self._fault is None and self._unfinished_bytes > MAX_HEAD_BYTES:
                self._fault = _headers_too_large_error(f"more than {MAX_HEAD_BYTES} bytes")
            if self._fault is not None:
                self._refuse(self._fault)
                return
        self._heard_at = self.loop.time()
        if (self._is_in_head or self._is_in_body) and self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S if self._is_in_head else BODY_TIMEOUT_S, self._on_timeout)

    def send_400_response(self, msg: str) -> None:
        """Replace uvicorn's own response to invalid HTTP."""
        self._fault = self._fault or BadRequest(f"{msg} Check the request line and the headers.", code="invalid_http")

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._is_in_head, self._fields = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._fault = URITooLong(f"The URL has more than {MAX_URL_BYTES} bytes. Shorten it.", code="uri_too_long")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._fields > MAX_FIELDS:
            self._fault = self._fault or _headers_too_large_error(f"more than {MAX_FIELDS} fields")
        elif self._is_in_head:  # a trailer must not pass for a header, or be one that somebody has checked already
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head, self._is_in_body = False, True
        self._unfinished_bytes = self._fields = 0
        self._stop_timer()
        if self._fault is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unfinished_bytes = 0
        if self._fault is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._unfinished_bytes = 0
        if self._fault is None:
            self._is_in_body = False
            self._stop_timer()
            super().on_message_complete()

    # upgrading, to which nothing here leads

    def _should_upgrade_to_ws(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: anyone could fill the log."""

    # refusing

    def _on_timeout(self) -> None:
        self._timer = None
        if self._fault is not None or self.transport.is_closing():
            return
        if self._is_in_body:
            left_s = self._heard_at + BODY_TIMEOUT_S - self.loop.time()
            if self.flow.read_paused or left_s > 0:  # who is read slowly is not to blame
                self._timer = self.loop.call_later(max(left_s, 1.0), self._on_timeout)
                return
            words = (
                f"No data of the body arrived for {BODY_TIMEOUT_S:.0f} s. Send as many bytes as Content-Length says."
            )
        elif not self._unfinished_bytes:  # a connection that nobody used
            self.transport.close()
            return
        else:
            words = f"The headers weren't complete after {HEAD_TIMEOUT_S:.0f} s. Send them without delay."
        self._fault = RequestTimeout(words, code="request_timeout")
        self._refuse(self._fault)

    def _refuse(self, error: APIError) -> None:
        """Respond and close the connection; further data is discarded for a moment."""
        self._stop_timer()
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        is_mistakable = False  # whether the client would take our answer for another request's, or for a second one
        if self.cycle is not None:
            is_mistakable = self.cycle.response_started if self._is_in_body else not self.cycle.response_complete
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if is_mistakable:
            self.transport.close()
            return
        self.transport.write(_as_bytes(error))
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _remove_upgrade(piece: bytes) -> bytes:
    """Return the data with any `Upgrade` field renamed: the parser would treat what follows as another protocol.

    The field is an offer that may be ignored (https://www.rfc-editor.org/rfc/rfc9110#field.upgrade). Java's HTTP client
    sends it with every first request, whose body would be lost.
    """
    if not _UPGRADE.search(piece):
        return piece
    head, end, rest = piece.partition(b"\r\n\r\n")
    return _UPGRADE.sub(rb"\1x-upgrade:", head) + end + rest


def _headers_too_large_error(what: str) -> HeadersTooLarge:
    message = f"The request's headers have {what}. Send fewer or shorter ones."
    return HeadersTooLarge(message, code="headers_too_large")


def _as_bytes(error: APIError) -> bytes:
    response = error.response()
    headers = [
        *response.raw_headers,
        (b"x-request-id", f"req_{secrets.token_hex(16)}".encode()),
        (b"connection", b"close"),
    ]
    lines = [STATUS_LINE[response.status_code], *(b"%s: %s\r\n" % field for field in headers), b"\r\n"]
    return b"".join([*lines, bytes(response.body)])
