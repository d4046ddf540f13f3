"""Pure ASGI middleware that keeps request bodies under a cap, announced or not."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import PayloadTooLarge
from server.multipart import FORM_OVERHEAD_BYTES, too_large
from server.uploads import MAX_PART_BYTES

FILE_PATHS = frozenset({"/v1/files", "/v1/adapters"})
"""What takes a file as large as max_file_bytes."""
_PART = re.compile(r"/v1/uploads/[^/]+/parts")


class BodyLimit:
    """Answers 413 to a body over its cap: at once when its length is announced, else when it gets there.

    Forms that carry a file have a larger cap than JSON; what reads them holds the file itself to the exact limit.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_file_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.max_file_bytes = max_file_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The pages upload through a path of their own with a cap of its own.
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        limit = self._limit(scope)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > limit:
            await self._too_large(scope).response()(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise self._too_large(scope)
            return message

        await self.app(scope, limited, send)

    def _limit(self, scope: Scope) -> int:
        if (file_bytes := self._file_bytes(scope)) is not None:
            return file_bytes + FORM_OVERHEAD_BYTES
        return self.max_body_bytes

    def _file_bytes(self, scope: Scope) -> int | None:
        """The largest file in a request to this path; None where it takes none."""
        if scope["method"] != "POST":
            return None
        if scope["path"] in FILE_PATHS:
            return self.max_file_bytes
        return MAX_PART_BYTES if _PART.fullmatch(scope["path"]) else None

    def _too_large(self, scope: Scope) -> PayloadTooLarge:
        if (file_bytes := self._file_bytes(scope)) is not None:
            return too_large(file_bytes, "file" if scope["path"] in FILE_PATHS else "data")
        return PayloadTooLarge(
            f"The request body is larger than {self.max_body_bytes} bytes. "
            "Send less, or raise the setting max_body_bytes.",
            code="request_too_large",
        )
