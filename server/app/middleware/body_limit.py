"""Pure ASGI middleware that limits the size of request bodies and the shape of JSON ones.

A body is received completely before its route sees it, except files, which are streamed to disk.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.app.middleware.json_bounds import refuse_unwieldy
from server.files.form import FORM_OVERHEAD_BYTES, file_too_large_error
from server.files.uploads import MAX_PART_BYTES
from server.wire.errors import BadRequest, PayloadTooLarge

MAX_PAGE_EVENT_BYTES = 2 * 2**20
"""Request bodies for the pages, whose events include user input: a prompt of 200,000 characters is 0.2 to 1.2 MB."""
FILE_PATHS = frozenset({"/v1/files", "/v1/adapters"})
"""Paths that accept a file of up to max_file_bytes."""
_PART = re.compile(r"/v1/uploads/[^/]+/parts")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose body a route reads. Other bodies aren't read, and uvicorn receives at most 64 KiB of them."""


class BodyLimit:
    """Responds with 413 to a body over its limit: immediately if Content-Length exceeds it, else when the limit is
    reached.

    Forms with a file have a larger limit than JSON; their reader enforces the exact limit of the file.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int | None, max_file_bytes: int = 0) -> None:
        """max_body_bytes: for the API's bodies without a file; None if another server checks them."""
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.max_file_bytes = max_file_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _WITH_BODY:
            await self.app(scope, receive, send)
            return
        limit = self._limit(scope)
        if limit is None:
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isascii() and announced.isdigit() and (len(announced) > 20 or int(announced) > limit):
            await self._too_large_error(scope, limit).response()(scope, receive, send)
        elif self._file_bytes(scope) is not None:
            await self.app(scope, self._limit_receive(scope, receive, limit), send)
        else:
            await self._read_limited(scope, receive, send, limit)

    async def _read_limited(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        """Pass on the request once its body is complete."""
        try:
            body = await read_body(self._limit_receive(scope, receive, limit))
            if body:
                refuse_unwieldy(body, scope["path"])
        except (PayloadTooLarge, BadRequest) as error:
            await error.response()(scope, receive, send)
            return
        await self.app(scope, _replay(body, receive), send)

    def _limit_receive(self, scope: Scope, receive: Receive, limit: int) -> Receive:
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise self._too_large_error(scope, limit)
            return message

        return receive_limited

    def _limit(self, scope: Scope) -> int | None:
        """Return the maximum bytes of its body; None if it isn't limited here."""
        if not f"{scope['path']}/".startswith("/v1/"):
            return MAX_PAGE_EVENT_BYTES
        if self.max_body_bytes is None:
            return None
        file_bytes = self._file_bytes(scope)
        return self.max_body_bytes if file_bytes is None else file_bytes + FORM_OVERHEAD_BYTES

    def _file_bytes(self, scope: Scope) -> int | None:
        """Return the maximum file size for requests to this path; None if it accepts no files."""
        if scope["method"] != "POST":
            return None
        if scope["path"] in FILE_PATHS:
            return self.max_file_bytes
        return MAX_PART_BYTES if _PART.fullmatch(scope["path"]) else None

    def _too_large_error(self, scope: Scope, limit: int) -> PayloadTooLarge:
        if (file_bytes := self._file_bytes(scope)) is not None:
            return file_too_large_error(file_bytes, "file" if scope["path"] in FILE_PATHS else "data")
        remedy = ", or raise the setting max_body_bytes" if limit == self.max_body_bytes else ""
        return PayloadTooLarge(
            f"The request body is larger than {limit} bytes. Send a smaller one{remedy}.", code="request_too_large"
        )


async def read_body(receive: Receive) -> bytes:
    """Return the request's body. Raises: ClientDisconnect."""
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that first returns the complete body again, then continues as before."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay
