"""JSON and JSONL files in, decoded records out, each with its place. Knows no format; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

import orjson

from training.data.formats.json_records import Broken, Record, decode, explained, not_utf8, suspicious

MAX_LINE_BYTES = 64 * 2**20
"""Longest line that is read; it bounds the memory that a file can take."""
MAX_ARRAY_BYTES = 2**30
"""Largest JSON array: it is read whole, and takes about four times its size in memory."""
BOM = b"\xef\xbb\xbf"


def read_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | Broken]]:
    """The lines of `file` with their numbers, the byte order mark and line ends taken off.

    A line over `MAX_LINE_BYTES` is passed over and is a `Broken`.
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
    """The record on each line; blank lines are passed over, but counted."""
    first = True
    for line, text in read_lines(file):
        if isinstance(text, Broken):
            yield "line", line, text
            continue
        if not text.strip():
            continue
        value = decode(text)
        if first and isinstance(value, Broken) and (whole := _spread_over_lines(file)):
            yield "line", line, Broken(whole)
            return
        first = False
        yield "line", line, value


def read_array(file: BinaryIO) -> Iterator[Record]:
    """The elements of the JSON array in `file`."""
    content = file.read(MAX_ARRAY_BYTES + len(BOM) + 1).removeprefix(BOM)
    if len(content) > MAX_ARRAY_BYTES:
        limit = f"{MAX_ARRAY_BYTES // 2**20:,} MiB"
        yield (
            "line",
            None,
            Broken(f"it is a JSON array of over {limit}, which is read whole; write one record per line"),
        )
        return
    try:
        elements = orjson.loads(content)
        if not suspicious(content, elements):
            for place, record in enumerate(elements, start=1):
                yield "element", place, record
            return
    except orjson.JSONDecodeError:
        pass  # explained below, element by element
    yield from _careful_array(content)


def _spread_over_lines(file: BinaryIO) -> str | None:
    """Why a file whose first line is no JSON holds one value over several lines, or None where it doesn't."""
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
    return "the record goes on over several lines; write each on one line (JSONL), or put all into one [ ] (JSON)"


def _careful_array(content: bytes) -> Iterator[Record]:
    """The elements one by one, each with what is wrong with it, up to where the array breaks."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        broken = not_utf8(error, content)
        yield "line", broken.place, broken
        return
    position = _after_space(text, _after_space(text, 0) + 1)
    place = 0
    while not text.startswith("]", position) or place:
        place += 1
        try:
            _, end = json.JSONDecoder().raw_decode(text, position)
        except json.JSONDecodeError as error:
            yield _syntax(text, error.pos, f"it isn't JSON: {error.msg}")
            return
        except (ValueError, RecursionError):
            yield "line", text.count("\n", 0, position) + 1, explained(text[position:].encode("utf-8", "replace"))
            return
        yield "element", place, decode(text[position:end].encode("utf-8"))
        position = _after_space(text, end)
        if text.startswith("]", position):
            break
        if not text.startswith(",", position):
            yield _syntax(text, position, "it isn't JSON: a comma or ] is missing after an element")
            return
        position = _after_space(text, position + 1)
    if text[position + 1 :].strip():
        yield _syntax(text, _after_space(text, position + 1), "it isn't JSON: more follows after the array's closing ]")


def _syntax(text: str, position: int, reason: str) -> Record:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return "line", line, Broken(f"{reason} at column {column}")


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position
