"""Reads a file's records, each with its position, after detecting the kind of file. Imports no torch.

The kind is detected by the first bytes, then by the name's suffix: a renamed file can be read all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from training.config.config import FileFormat
from training.data.formats.json_files import BOM, MAX_LINE_BYTES, read_array, read_jsonl, read_lines
from training.data.formats.json_records import Broken, Record, encoding_fault
from training.data.formats.table_records import read_csv, read_parquet

FileKind = Literal["jsonl", "array", "csv", "tsv", "parquet", "text"]
_UNSUPPORTED: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"PK\x03\x04", "a zip archive (or a spreadsheet); unpack it, or save it as CSV"),
    (b"PK\x05\x06", "an empty zip archive; use the file itself"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive; unpack it first"),
    (b"\x89PNG", "an image (PNG); use a file of examples"),
    (b"\xff\xd8\xff", "an image (JPEG); use a file of examples"),
    (b"GIF8", "an image (GIF); use a file of examples"),
    (b"RIFF", "an image or audio (RIFF); use a file of examples"),
    (b"%PDF", "a PDF; save its text as a .txt file"),
    (b"SQLite format 3\x00", "an SQLite database; export its rows as JSONL or CSV"),
    (b"ARROW1", "an Arrow file; save it as Parquet"),
    (b"\x7fELF", "a program; use a file of examples"),
    (b"\xff\xfe", "UTF-16 text; save the file as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save the file as UTF-8"),
)
_SNIFFED = 4096
"""First bytes by which the kind is detected."""
_LOOKS_LIKE_JSON = re.compile(rb'\s*(\[\s*)?\{\s*"')
_CSV_HEADER = re.compile(rb'"?(messages|instruction|prompt|text|conversations|completion|chosen|system|id)"?,"?\w')


def read_records(path: Path, file_format: FileFormat = "auto") -> Iterator[Record]:
    """Yield the unit of each position, the position, and the record or a `Broken`; None is the file as a whole.

    Memory stays bounded except for a JSON array, whatever the file contains.
    """
    if broken := _explain_unreadable(path):
        yield "line", None, broken
        return
    try:
        with path.open("rb") as file:
            start = file.read(_SNIFFED)
            file.seek(0)
            kind = _detect_kind(start, path.suffix.lower(), file_format)
            if isinstance(kind, Broken):
                yield "line", None, kind
            elif kind == "parquet":
                yield from read_parquet(path)
            else:
                yield from _report_encoding_once(_read_kind(file, kind))
    except OSError as error:
        yield "line", None, Broken(f"it can't be read: {error.strerror}; check the path")


def read_text(file: BinaryIO) -> Iterator[Record]:
    """Yield documents as `{"text": …}`: separated by blank lines; line by line if there are none between lines."""
    by_line = not _has_blank_between(file)
    document: list[str] = []
    begins, size = 1, 0
    for line, content in read_lines(file):
        text = content if isinstance(content, Broken) else _decode_text(content)
        if isinstance(text, Broken):
            yield "line", line, text
            continue
        if document and (by_line or not text.strip() or size > MAX_LINE_BYTES):
            yield "line", begins, _make_document(document, size)
            document, size = [], 0
        if text.strip():
            begins = begins if document else line
            document.append(text)
            size += len(text)
    if document:
        yield "line", begins, _make_document(document, size)


def _explain_unreadable(path: Path) -> Broken | None:
    """Return why `path` isn't a file that can be read to its end."""
    try:
        if path.is_dir():
            return Broken("it is a directory; use a single file of examples")
        if path.exists() and not path.is_file():
            return Broken("it is a pipe or a device; use a file")
    except (OSError, ValueError) as error:
        return Broken(f"it can't be read: {error}; check the path")
    return (
        None if "\0" not in str(path) else Broken("it can't be read: the path contains a NUL character; check the path")
    )


def _detect_kind(start: bytes, suffix: str, file_format: FileFormat) -> FileKind | Broken:
    if start.startswith(b"PAR1"):
        return "parquet"
    for magic, what in _UNSUPPORTED:
        if start.startswith(magic):
            return Broken(f"it is {what}")
    if suffix == ".parquet" and start:
        return Broken("its name ends in .parquet, but it isn't a Parquet file; use the right extension")
    if b"\0" in start:
        half = max(start[::2].count(0), start[1::2].count(0)) * 4 >= len(start)
        return Broken(f"it is {'UTF-16 text; save the file as UTF-8' if half else 'binary, not text; use JSONL'}")
    start = start.removeprefix(BOM)
    text = suffix in (".txt", ".text", ".md") and file_format in ("auto", "text")
    if text and (file_format == "text" or not _LOOKS_LIKE_JSON.match(start)):
        return "text"
    if start.lstrip()[:1] in (b"[", b"{"):
        return "array" if start.lstrip()[:1] == b"[" else "jsonl"
    if suffix in (".csv", ".tsv"):
        return "csv" if suffix == ".csv" else "tsv"
    if suffix in (".json", ".jsonl", ".ndjson"):
        return "jsonl"
    if _CSV_HEADER.match(start):
        return "csv"
    return "text" if file_format == "text" else "jsonl"


def _read_kind(file: BinaryIO, kind: FileKind) -> Iterator[Record]:
    if kind == "array":
        return read_array(file)
    if kind == "text":
        return read_text(file)
    return read_jsonl(file) if kind == "jsonl" else read_csv(file, "\t" if kind == "tsv" else ",")


def _report_encoding_once(records: Iterator[Record]) -> Iterator[Record]:
    """Yield `records` with only the first encoding fault: if one line isn't UTF-8, mostly none is."""
    is_reported = False
    for unit, place, record in records:
        if isinstance(record, Broken) and record.encoding:
            if is_reported:
                continue
            is_reported = True
        yield unit, place, record


def _decode_text(content: bytes) -> str | Broken:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return encoding_fault(error, content)
    return Broken("it contains the NUL character; remove it") if "\0" in text else text


def _make_document(lines: list[str], size: int) -> dict[str, str] | Broken:
    if size > MAX_LINE_BYTES:
        return Broken(f"the document is longer than {MAX_LINE_BYTES // 2**20} MiB; split it with a blank line")
    return {"text": "\n".join(lines)}


def _has_blank_between(file: BinaryIO) -> bool:
    """Return whether a blank line separates two non-blank lines; `file` is reset to its start."""
    blank = started = found = False
    for _, content in read_lines(file):
        empty = isinstance(content, bytes) and not content.strip()
        if not empty and blank and started:
            found = True
            break
        blank = empty
        started = started or not empty
    file.seek(0)
    return found
