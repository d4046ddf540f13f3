"""What an archive holds, whatever its form. It refuses to know which of it belongs to an adapter."""

from collections.abc import Iterator
from dataclasses import dataclass

from serving.errors import AdapterError

CHUNK_BYTES = 2**20
"""Read at once."""


class ArchiveError(AdapterError):
    """An archive that is damaged, or holds what an adapter's archive must not hold."""


@dataclass(frozen=True)
class Member:
    """One folder or regular file of an archive: other kinds are refused by whoever reads it."""

    name: str
    """As the archive has it, unchecked."""
    is_folder: bool
    chunks: Iterator[bytes]
    """The content as it is unpacked, to be read to its end before the next member is asked for. Nothing is in memory
    but one chunk. Raises: ArchiveError."""
