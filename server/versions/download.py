"""Streams an adapter directory as a .tar.gz in small pieces, without writing to disk.

Every file is opened before the first piece is sent, so deleting the adapter meanwhile doesn't break the download. Paths
of this machine are removed from the manifest.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from adapter_format.files import MANIFEST_FILE
from serving import Adapter

PIECE_BYTES = 2**20
"""Read at once; a slow client keeps no more than this in memory."""
_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 1
"""Weights hardly compress at any level."""


class AdapterArchive:
    """The archive of one adapter. Iterate over it once, in a thread; call `close` if that never happens."""

    def __init__(self, adapter: Adapter) -> None:
        """Raises: FileNotFoundError if the adapter is being deleted."""
        self._folder, self._changed_at = adapter.id, adapter.created_at
        self._open = ExitStack()
        self._files: list[tuple[str, BinaryIO, int]] = []
        try:
            for path in sorted(adapter.path.iterdir()):
                if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                    self._add(path)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        """The archive's bytes."""
        squeeze = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        try:
            for piece in self._iterate_tar():
                if squeezed := squeeze.compress(piece):
                    yield squeezed
            yield squeeze.flush()
        finally:
            self.close()

    def close(self) -> None:
        """Close the files."""
        self._open.close()

    def _add(self, path: Path) -> None:
        if path.name == MANIFEST_FILE:
            content = _remove_paths(path.read_bytes())
            self._files.append((path.name, io.BytesIO(content), len(content)))
        else:
            file = self._open.enter_context(path.open("rb"))
            self._files.append((path.name, file, os.fstat(file.fileno()).st_size))

    def _iterate_tar(self) -> Iterator[bytes]:
        """https://www.gnu.org/software/tar/manual/html_node/Standard.html"""
        for name, file, size in self._files:
            member = tarfile.TarInfo(f"{self._folder}/{name}")
            member.size, member.mode, member.mtime = size, 0o644, self._changed_at
            yield member.tobuf(tarfile.PAX_FORMAT)
            left = size
            while left and (piece := file.read(min(left, PIECE_BYTES))):
                left -= len(piece)
                yield piece
            yield b"\0" * (-size % tarfile.BLOCKSIZE)
        yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _remove_paths(manifest: bytes) -> bytes:
    """Return the manifest with paths in its configuration reduced to their last part."""
    content: dict[str, Any] = json.loads(manifest)
    config = content.get("config")
    if isinstance(config, dict):
        content["config"] = {name: _strip_folders(value) for name, value in config.items()}
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _strip_folders(value: Any) -> Any:
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value
