"""Reads a gzipped tar as a stream: regular files and folders, and nothing else.

Python's tarfile understands every tar format there has been, interprets headers that refer to each other, and reads
headers of any size into memory. From an untrusted archive only the plain part is wanted: ustar, and the long names of
pax and GNU (https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html).
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from serving.adapters.archive.member import CHUNK_BYTES, ArchiveError, Member
from serving.errors import quote

GZIP_MAGIC = b"\x1f\x8b"
BLOCK = 512
MAX_EXTENDED_BYTES = 64 * 1024
"""Bound on an extended header; those written by macOS have a few kB."""
MAX_EXTENDED_IN_A_ROW = 4
MAX_PADDING_BYTES = 4 * 2**20
"""Bound on the zeros at the end; tar itself writes some kB."""
_UTF8 = "ISO-IR 10646 2000 UTF-8"
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
    b"S": "a sparse file",
}
_REMEDY = "Pack only the adapter's files, with `tar -czf`."
_TRUNCATED = "The archive is truncated. Pack it again, or send it again."


def tar_members(file: BinaryIO) -> Iterator[Member]:
    """Yield the members of the .tar.gz in `file`, in order. Raises: ArchiveError."""
    return _TarReader(_GzipReader(file)).members()


class _GzipReader:
    """The decompressed bytes of a gzip file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(wbits=31)
        self._compressed = b""
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes; fewer at the end. Raises: ArchiveError when it is damaged or truncated."""
        while len(self._buffer) < size and self._refill(size - len(self._buffer)):
            pass
        content = bytes(self._buffer[:size])
        del self._buffer[:size]
        return content

    def _refill(self, wanted: int) -> bool:
        if self._inflate.eof:
            return False
        self._compressed = self._compressed or self._file.read(CHUNK_BYTES)
        if not self._compressed:
            raise ArchiveError(_TRUNCATED)
        try:
            self._buffer += self._inflate.decompress(self._compressed, wanted)
        except zlib.error as error:
            raise ArchiveError(f"The archive is damaged (gzip: {error}). Pack it again, or send it again.") from error
        self._compressed = self._inflate.unconsumed_tail
        self._refuse_trailing_data()
        return True

    def _refuse_trailing_data(self) -> None:
        """Raise ArchiveError when the file goes on after the end of the gzip stream."""
        if self._inflate.eof and (self._inflate.unused_data.strip(b"\0") or self._file.read(1)):
            raise ArchiveError(f"The archive has data after its end. {_REMEDY}")


@dataclass(frozen=True)
class _Header:
    name: str
    kind: bytes
    size: int


class _TarReader:
    """The members of an uncompressed tar."""

    def __init__(self, content: _GzipReader) -> None:
        self._content = content

    def members(self) -> Iterator[Member]:
        extended: dict[str, str] = {}
        in_a_row = 0
        while block := self._read_header_block():
            header = _parse_header(block)
            if header.kind in (b"x", b"g", b"L"):
                in_a_row += 1
                extended = self._read_extended(header, extended, in_a_row)
                continue
            name, size = extended.get("path", header.name), _member_size(extended, header)
            extended, in_a_row = {}, 0
            is_folder = header.kind == b"5" or name.endswith("/")
            if header.kind not in (b"0", b"\0", b"5") or (is_folder and size):
                raise ArchiveError(
                    f"The archive's entry {quote(name)!r} is {_KINDS.get(header.kind, 'of an unknown kind')}, but "
                    "only regular files in one folder are accepted. Pack the files themselves."
                )
            yield Member(name, is_folder, self._chunks(size))
        if extended:
            raise ArchiveError(_TRUNCATED)

    def _read_header_block(self) -> bytes | None:
        """Return the next header; None at the archive's end, which is read completely so that its checksum counts."""
        block = self._read_exactly(BLOCK)
        if block.strip(b"\0"):
            return block
        rest = self._content.read(MAX_PADDING_BYTES)
        if rest.strip(b"\0") or len(rest) == MAX_PADDING_BYTES:
            raise ArchiveError(f"The archive continues after its end. {_REMEDY}")
        return None

    def _read_extended(self, header: _Header, before: dict[str, str], in_a_row: int) -> dict[str, str]:
        """Return what this header, which contains a name or pax records, says about the next member."""
        if header.size > MAX_EXTENDED_BYTES or in_a_row > MAX_EXTENDED_IN_A_ROW:
            raise ArchiveError(
                f"The archive has headers of more than {MAX_EXTENDED_BYTES} bytes, or more than "
                f"{MAX_EXTENDED_IN_A_ROW} for one file. {_REMEDY}"
            )
        content = b"".join(self._chunks(header.size))
        records = {"path": _decode_name(content.rstrip(b"\0"))} if header.kind == b"L" else _parse_pax_records(content)
        if any(key.startswith("GNU.sparse.") for key in records):
            raise ArchiveError("The archive contains a sparse file. Pack it without `--sparse`.")
        ours = {key: value for key, value in records.items() if key in ("path", "size")}
        if (header.kind == b"g" and ours) or ours.keys() & before.keys():
            raise ArchiveError(f"The archive has two names for one file. {_REMEDY}")
        return before | ours

    def _chunks(self, size: int) -> Iterator[bytes]:
        """Yield the next `size` bytes, and skip the padding of the last block."""
        remaining = size
        while remaining:
            chunk = self._read_exactly(min(remaining, CHUNK_BYTES))
            remaining -= len(chunk)
            yield chunk
        self._read_exactly(-size % BLOCK)

    def _read_exactly(self, size: int) -> bytes:
        content = self._content.read(size)
        if len(content) < size:
            raise ArchiveError(_TRUNCATED)
        return content


def _parse_header(block: bytes) -> _Header:
    checksum = _parse_octal(block[148:156])
    if checksum != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise ArchiveError(f"The archive is damaged or isn't a tar archive: a header's checksum is wrong. {_REMEDY}")
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return _Header(_decode_name(prefix + b"/" + name if prefix else name), block[156:157], _parse_octal(block[124:136]))


def _parse_octal(field: bytes) -> int:
    """Parse an octal number. Values that need another notation are larger than any adapter."""
    digits = field.strip(b" \0")
    if not all(digit in b"01234567" for digit in digits):
        raise ArchiveError(f"The archive has a number in a header that isn't octal. {_REMEDY}")
    return int(digits or b"0", 8)


def _member_size(extended: dict[str, str], header: _Header) -> int:
    size = extended.get("size", str(header.size))
    if not (size.isascii() and size.isdigit() and len(size) < 16):
        raise ArchiveError(f"The archive has an invalid file size: {quote(size)!r} bytes. {_REMEDY}")
    return int(size)


def _parse_pax_records(content: bytes) -> dict[str, str]:
    """Parse records `LENGTH KEY=VALUE\\n` to key → value; keys and values that don't matter here may be any bytes."""
    records: dict[str, str] = {}
    while content:
        digits, _, _ = content[:8].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = content[len(digits) + 1 : length]
        key, equals, value = record[:-1].partition(b"=")
        if length > len(content) or not record.endswith(b"\n") or not equals:
            raise ArchiveError(f"The archive has a pax header that can't be read. {_REMEDY}")
        name = key.decode("latin-1")
        records[name] = _decode_name(value) if name in ("path", "size", "hdrcharset") else ""
        content = content[length:]
    if records.get("hdrcharset", _UTF8) != _UTF8:
        raise ArchiveError("The archive has file names that aren't UTF-8. Rename the files, and pack them again.")
    return records


def _decode_name(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise ArchiveError(
            f"The archive has the file name {quote(name)}, which isn't UTF-8. Rename the files, and pack them again."
        ) from error
