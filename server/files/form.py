"""Reads a multipart form with one file, which is streamed to disk.

The event loop receives the bytes; a thread parses, hashes and writes them, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from server.files.contents import IncomingFile
from server.wire.errors import BadRequest, PayloadTooLarge

BATCH_BYTES = 2**20
"""Bytes that are passed to the thread at once."""
MAX_FIELDS = 32
MAX_FIELD_BYTES = 64 * 1024
FORM_OVERHEAD_BYTES = 2**20
"""Allowance for everything in a form besides its file."""


def openapi_form(required: Sequence[str], properties: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the OpenAPI description of a form, for /docs: routes that read the form themselves need it."""
    schema = {"type": "object", "required": list(required), "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@dataclass
class Form:
    """A form without the bytes of its file."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    """As the client sent it; None if there was no file."""


async def read_form(request: Request, file_field: str, into: IncomingFile, max_file_bytes: int) -> Form:
    """Read the form in the request's body; the content of its field `file_field` is written to `into`.

    Raises:
        BadRequest: it isn't such a form, or it is incomplete.
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
        raise BadRequest(
            "The connection closed before the whole file was received. Send it again.", code="incomplete_body"
        ) from error
    except FormParserError as error:
        raise BadRequest(
            f"The body isn't a multipart form: {error}. Use the official SDK or `curl -F`.", code="invalid_multipart"
        ) from error
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
    """The parser's callbacks, and what they have read of the form so far."""

    def __init__(self, boundary: bytes, file_field: str, into: IncomingFile, max_file_bytes: int) -> None:
        self._file_field, self._into, self._max_file_bytes = file_field, into, max_file_bytes
        self._form = Form()
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._name, self._decode = "", bytearray()
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_part_data,
                "on_part_end": self._end_part,
                "on_end": self._end_form,
            },
        )

    def feed(self, data: bytes) -> None:
        """Parse the next bytes."""
        self._parser.write(data)

    def end(self) -> Form:
        """Return the form, which must be complete.

        Raises:
            BadRequest: it is incomplete, or has no file.
        """
        if not self._ended:
            raise BadRequest("The form ended before its closing boundary. Send it again.", code="incomplete_body")
        if self._form.filename is None:
            raise BadRequest(
                f"The form has no file in the field `{self._file_field}`. Add one.",
                code="missing_required_parameter",
                param=self._file_field,
            )
        return self._form

    def _begin_part(self) -> None:
        self._disposition = b""
        self._decode.clear()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise BadRequest("A part of the form has no name. Add one.", code="invalid_multipart")
        self._name = _decode(options[b"name"])
        if self._name == self._file_field:
            self._refuse_second_file()
            self._form.filename = _decode(options.get(b"filename", b""))
        elif b"filename" in options:
            raise BadRequest(
                f"The form has a file in the field {self._name[:100]!r}; send one file, in `{self._file_field}`.",
                code="unknown_parameter",
                param=self._name[:100],
            )
        else:
            self._refuse_repeated_field()

    def _add_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name != self._file_field:
            self._decode += data[start:end]
            if len(self._decode) > MAX_FIELD_BYTES:
                raise BadRequest(
                    f"The field {self._name[:100]!r} has more than {MAX_FIELD_BYTES} bytes. Shorten it.",
                    code="string_above_max_length",
                    param=self._name[:100],
                )
            return
        if self._into.bytes + end - start > self._max_file_bytes:
            raise file_too_large_error(self._max_file_bytes, self._file_field)
        self._into.write(memoryview(data)[start:end])

    def _end_part(self) -> None:
        if self._name != self._file_field:
            self._form.fields[self._name] = _decode(bytes(self._decode))

    def _end_form(self) -> None:
        self._ended = True

    def _refuse_second_file(self) -> None:
        if self._form.filename is not None:
            raise BadRequest(
                f"The form has more than one file in `{self._file_field}`; send one at a time.",
                code="invalid_multipart",
                param=self._file_field,
            )

    def _refuse_repeated_field(self) -> None:
        if self._name in self._form.fields or len(self._form.fields) >= MAX_FIELDS:
            raise BadRequest(
                f"The form has the field {self._name[:100]!r} twice, or more than {MAX_FIELDS} fields. Remove some.",
                code="invalid_multipart",
                param=self._name[:100],
            )


def file_too_large_error(max_bytes: int, param: str) -> PayloadTooLarge:
    """Return the error for a file above `max_bytes`."""
    remedy = (
        "Send a smaller file, raise the setting max_file_bytes, or upload training data in parts with POST /v1/uploads"
        if param == "file"
        else "Send smaller parts"
    )
    return PayloadTooLarge(f"The file is larger than {max_bytes} bytes. {remedy}.", code="file_too_large", param=param)


def _decode(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
