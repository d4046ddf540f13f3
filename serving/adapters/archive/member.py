"""An archive's members, in any format."""

from collections.abc import Iterator
from dataclasses import dataclass

from serving.errors import AdapterError

CHUNK_BYTES = 2**20
"""Bytes per read."""


class ArchiveError(AdapterError):
    """An archive that is damaged, or contains what an adapter's archive must not contain."""


@dataclass(frozen=True)
class Member:
    """One folder or regular file of an archive; its reader rejects other kinds."""

    name: str
    """As in the archive, unchecked."""
    is_folder: bool
    chunks: Iterator[bytes]
    """The content as it is unpacked, to be consumed before the next member is requested. Only one chunk is in memory.
    Raises: ArchiveError."""
