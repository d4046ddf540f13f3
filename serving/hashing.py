"""The hash of a file. It refuses to know what files are for."""

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """The sha256 of the file's bytes, in hex, without holding them in memory. Raises: OSError."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
