"""Reads a multipart form whose one file goes straight to disk. Knows no purpose of it.

Bytes come from the event loop; what parses, hashes and writes them runs in a thread, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from server.files.contents import Incoming
from server.wire.errors import BadRequest, PayloadTooLarge

BATCH_BYTES = 2**20
"""Bytes that are handed to the thread at once."""
MAX_FIELDS = 32
MAX_FIELD_BYTES = 64 * 1024
FORM_OVERHEAD_BYTES = 2**20
"""What a form may have beside its file."""


def openapi_form(required: Sequence[str], properties: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a route says of its form, for /docs, since it reads the form by itself."""
    schema = {"type": "object", "required": list(required), "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@dataclass
class Form:
    """What came beside the file's bytes."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    """As the client gave it; None where no file came."""


async def read_form(request: Request, file_field: str, into: Incoming, max_file_bytes: int) -> Form:
    """The form in the request's body; the content of its field `file_field` is in `into`.

    Raises:
        BadRequest: it is no such form, or it ended midway.
        PayloadTooLarge: the file has more than `max_file_bytes`.
        OSError: the disk is full.
    """
    boundary, batch = _boundary(request), bytearray()
    try:
        reader = _Reader(boundary, file_field, into, max_file_bytes)
        async for chunk in request.stream():
            batch += chunk
            if len(batch) >= BATCH_BYTES:
                await run_in_threadpool(reader.feed, bytes(batch))
                batch.clear()
        await run_in_threadpool(reader.feed, bytes(batch))
    except ClientDisconnect as error:
        raise BadRequest("The connection ended before the file did. Send it again.", code="incomplete_body") from error
    except FormParserError as error:
        raise BadRequest(f"The body is no multipart form: {error}.", code="invalid_multipart") from error
    return reader.end()


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise BadRequest(
            "The body must be multipart/form-data with a boundary; the official SDK and `curl -F` send it so.",
            code="invalid_content_type",
        )
    return options[b"boundary"]


class _Reader:
    """The parser's callbacks: what has been read so far of a form."""

    def __init__(self, boundary: bytes, file_field: str, into: Incoming, max_file_bytes: int) -> None:
        self._file_field, self._into, self._max_file_bytes = file_field, into, max_file_bytes
        self._form = Form()
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._name, self._text = "", bytearray()
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._take,
                "on_part_end": self._end_part,
                "on_end": self._end_form,
            },
        )

    def feed(self, data: bytes) -> None:
        """Goes on with the next bytes."""
        self._parser.write(data)

    def end(self) -> Form:
        """The form, which must be whole by now.

        Raises:
            BadRequest: it isn't, or it has no file.
        """
        if not self._ended:
            raise BadRequest("The form ended before its closing boundary. Send it again.", code="incomplete_body")
        if self._form.filename is None:
            raise BadRequest(
                f"The form has no file in its field `{self._file_field}`.",
                code="missing_required_parameter",
                param=self._file_field,
            )
        return self._form

    def _begin_part(self) -> None:
        self._disposition = b""
        self._text.clear()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise BadRequest("A part of the form has no name.", code="invalid_multipart")
        self._name = _text(options[b"name"])
        if self._name == self._file_field:
            self._refuse_second()
            self._form.filename = _text(options.get(b"filename", b""))
        elif b"filename" in options:
            raise BadRequest(
                f"The form has a file in the field {self._name[:100]!r}; give one file, in `{self._file_field}`.",
                code="unknown_parameter",
                param=self._name[:100],
            )
        else:
            self._refuse_field_again()

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._name != self._file_field:
            self._text += data[start:end]
            if len(self._text) > MAX_FIELD_BYTES:
                raise BadRequest(
                    f"The field {self._name[:100]!r} has more than {MAX_FIELD_BYTES} bytes.",
                    code="string_above_max_length",
                    param=self._name[:100],
                )
            return
        if self._into.bytes + end - start > self._max_file_bytes:
            raise too_large(self._max_file_bytes, self._file_field)
        self._into.write(memoryview(data)[start:end])

    def _end_part(self) -> None:
        if self._name != self._file_field:
            self._form.fields[self._name] = _text(bytes(self._text))

    def _end_form(self) -> None:
        self._ended = True

    def _refuse_second(self) -> None:
        if self._form.filename is not None:
            raise BadRequest(
                f"The form has more than one file in `{self._file_field}`; give one at a time.",
                code="invalid_multipart",
                param=self._file_field,
            )

    def _refuse_field_again(self) -> None:
        if self._name in self._form.fields or len(self._form.fields) >= MAX_FIELDS:
            raise BadRequest(
                f"The field {self._name[:100]!r} stands twice in the form, or there are more than {MAX_FIELDS} fields.",
                code="invalid_multipart",
                param=self._name[:100],
            )


def too_large(max_bytes: int, param: str) -> PayloadTooLarge:
    """The refusal of a file above `max_bytes`."""
    remedy = (
        "Send less, raise the setting max_file_bytes, or send a file for training in parts: POST /v1/uploads"
        if param == "file"
        else "Send smaller parts"
    )
    return PayloadTooLarge(f"The file is larger than {max_bytes} bytes. {remedy}.", code="file_too_large", param=param)


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
