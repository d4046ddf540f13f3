"""Reads a zip: regular files and folders, stored or deflated, and nothing else."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from serving.adapters.archive.member import CHUNK_BYTES, ArchiveError, Member
from serving.errors import quote

ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
MAX_READ_BYTES = 2 * 2**20
"""Most that zipfile may read at once: its directory of all entries is one such read, and is kept in memory."""
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1 | 0x40
# What zipfile raises for a damaged file: it wasn't written for hostile ones.
_DAMAGED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,  # UnicodeDecodeError is one
    LookupError,
    OverflowError,
    RuntimeError,  # NotImplementedError is one
)


def zip_members(file: BinaryIO) -> Iterator[Member]:
    """Yield the members of the zip in `file`, in the order of its directory. Raises: ArchiveError."""
    with _translate_damage():
        archive = zipfile.ZipFile(_BoundedFile(file))
    for entry in archive.infolist():
        is_folder = entry.orig_filename.endswith("/")
        _refuse_unsupported(entry, is_folder)
        yield Member(entry.orig_filename, is_folder, _chunks(archive, entry))


def _refuse_unsupported(entry: zipfile.ZipInfo, is_folder: bool) -> None:
    name = quote(entry.orig_filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)  # set by Unix programs; others leave it 0
    if kind not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
        what = "a symbolic link" if kind == stat.S_IFLNK else "of another kind"
        raise ArchiveError(
            f"The archive's entry {name!r} is {what}, but only regular files in one folder are accepted. Pack the "
            "files themselves."
        )
    if entry.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"The archive's entry {name!r} is encrypted. Pack it without a password.")
    if entry.compress_type not in _METHODS:
        raise ArchiveError(
            f"The archive's entry {name!r} is compressed by method {entry.compress_type}, but only deflate is "
            "supported. Pack it with `zip`."
        )
    if is_folder and entry.file_size:
        raise ArchiveError(f"The archive's entry {name!r} is a folder but has content. Pack it with `zip`.")


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content; zipfile verifies its checksum, and stops at the length given in the directory."""
    unpacked = 0
    with _translate_damage(), archive.open(entry) as content:
        while chunk := content.read(CHUNK_BYTES):
            unpacked += len(chunk)
            yield chunk
        if unpacked != entry.file_size:
            raise zipfile.BadZipFile(f"{quote(entry.orig_filename)} has {unpacked} bytes, not {entry.file_size}")


@contextmanager
def _translate_damage() -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise ArchiveError(
            f"The archive is damaged or isn't a supported zip: {quote(error)}. Pack it with `zip`, or send it again."
        ) from error


class _BoundedFile(io.RawIOBase):
    """A file that limits the size of a read, and rejects seeks outside itself."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)

    def read(self, size: int = -1) -> bytes:
        wanted = self._size - self._file.tell() if size is None or size < 0 else size
        if wanted > MAX_READ_BYTES:
            raise zipfile.BadZipFile(f"a part of {wanted} bytes, more than {MAX_READ_BYTES}, had to be read at once")
        return self._file.read(wanted)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._file.tell(), io.SEEK_END: self._size}[whence]
        if not 0 <= start + offset <= self._size:
            raise zipfile.BadZipFile("it points outside itself")
        return self._file.seek(start + offset)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
