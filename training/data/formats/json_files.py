"""Reads JSON and JSONL files into decoded records, each with its position. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

import orjson

from training.data.formats.json_records import (
    Broken,
    Record,
    decode,
    decode_carefully,
    encoding_fault,
    needs_careful_parser,
)

MAX_LINE_BYTES = 64 * 2**20
"""Maximum length of a line; it bounds the memory that a file can use."""
MAX_ARRAY_BYTES = 2**30
"""Maximum size of a JSON array: it is read whole, and takes about four times its size in memory."""
BOM = b"\xef\xbb\xbf"


def read_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | Broken]]:
    """Yield the lines of `file` with their numbers, without the byte order mark and line ends.

    A line over `MAX_LINE_BYTES` is skipped and yields a `Broken`.
    """
    line = 0
    while text := file.readline(MAX_LINE_BYTES + 1):
        line += 1
        if line == 1:
            text = text.removeprefix(BOM)
        if len(text) > MAX_LINE_BYTES:
            while text and not text.endswith(b"\n"):
                text = file.readline(MAX_LINE_BYTES)
            yield line, Broken(f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB; split the record")
        else:
            yield line, text.rstrip(b"\r\n")


def read_jsonl(file: BinaryIO) -> Iterator[Record]:
    """Yield the record on each line; blank lines are skipped, but counted."""
    first = True
    for line, text in read_lines(file):
        if isinstance(text, Broken):
            yield "line", line, text
            continue
        if not text.strip():
            continue
        value = decode(text)
        if first and isinstance(value, Broken) and (whole := _explain_multiline(file)):
            yield "line", line, Broken(whole)
            return
        first = False
        yield "line", line, value


def read_array(file: BinaryIO) -> Iterator[Record]:
    """Yield the elements of the JSON array in `file`."""
    content = file.read(MAX_ARRAY_BYTES + len(BOM) + 1).removeprefix(BOM)
    if len(content) > MAX_ARRAY_BYTES:
        limit = f"{MAX_ARRAY_BYTES // 2**20:,} MiB"
        yield (
            "line",
            None,
            Broken(f"it is a JSON array larger than {limit}, the limit for arrays; write one record per line"),
        )
        return
    try:
        elements = orjson.loads(content)
        if not needs_careful_parser(content, elements):
            for place, record in enumerate(elements, start=1):
                yield "element", place, record
            return
    except orjson.JSONDecodeError:
        pass  # reported below, element by element
    yield from _read_array_carefully(content)


def _explain_multiline(file: BinaryIO) -> str | None:
    """Return why a file whose first line isn't JSON contains one value over several lines, or None if it doesn't."""
    here = file.tell()
    file.seek(0)
    content = file.read(MAX_LINE_BYTES).removeprefix(BOM)
    file.seek(here)
    try:
        text = content.decode("utf-8").lstrip()
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if "\n" not in text[:end]:
        return None
    listed = [key for key, item in value.items() if isinstance(item, list)] if isinstance(value, dict) else []
    if not text[end:].strip() and listed and "messages" not in value and "conversations" not in value:
        return (
            f"the file is one JSON object; write only the list in it (under `{listed[0][:40]}`), or one record per line"
        )
    return "the record spans several lines; write each record on one line (JSONL), or put all in one [ ] (JSON)"


def _read_array_carefully(content: bytes) -> Iterator[Record]:
    """Yield the elements one by one, each with its fault, up to where the array breaks."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        broken = encoding_fault(error, content)
        yield "line", broken.place, broken
        return
    position = _skip_space(text, _skip_space(text, 0) + 1)
    place = 0
    while not text.startswith("]", position) or place:
        place += 1
        try:
            _, end = json.JSONDecoder().raw_decode(text, position)
        except json.JSONDecodeError as error:
            yield _syntax_fault(text, error.pos, f"it isn't JSON: {error.msg}")
            return
        except (ValueError, RecursionError):
            yield (
                "line",
                text.count("\n", 0, position) + 1,
                decode_carefully(text[position:].encode("utf-8", "replace")),
            )
            return
        yield "element", place, decode(text[position:end].encode("utf-8"))
        position = _skip_space(text, end)
        if text.startswith("]", position):
            break
        if not text.startswith(",", position):
            yield _syntax_fault(text, position, "it isn't JSON: a comma or ] is missing after an element")
            return
        position = _skip_space(text, position + 1)
    if text[position + 1 :].strip():
        yield _syntax_fault(
            text, _skip_space(text, position + 1), "it isn't JSON: there is more after the array's closing ]"
        )


def _syntax_fault(text: str, position: int, reason: str) -> Record:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return "line", line, Broken(f"{reason} at column {column}")


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position
