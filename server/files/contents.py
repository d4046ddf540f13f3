"""File contents on disk: written to a temporary file, synced, then renamed to their id.

FOLDER/file-…       the content of a file
FOLDER/parts/part_… one part of an upload
FOLDER/incoming/…   what is being written; anything there at startup is left over from a killed server
FOLDER/orphaned/…   contents without a row in the database; kept, since they may belong to another database
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO

from adapter_format.disk import sync

CHUNK_BYTES = 2**20


class IncomingFile:
    """A file that is being written. As a context manager it removes what wasn't published."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / secrets.token_hex(12)
        self._file: BinaryIO = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._hash = hashlib.sha256()
        self.bytes = 0

    def __enter__(self) -> IncomingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """Hash of what has been written so far, in hexadecimal digits."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes | memoryview) -> None:
        """Append `chunk`."""
        self._hash.update(chunk)
        self._file.write(chunk)
        self.bytes += len(chunk)

    def flush(self) -> None:
        """Make everything written so far readable at `path`."""
        self._file.flush()

    def sync(self) -> None:
        """Sync the file to disk and close it: nothing can be appended any more."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def publish(self, target: Path) -> None:
        """Rename the file to `target` so that it survives a power cut. Fast if `sync` was called before."""
        self.sync()
        self.path.rename(target)
        sync(target.parent)


class Contents:
    """The folder with the contents of all files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts, self._incoming, self.orphaned = (folder / name for name in ("parts", "incoming", "orphaned"))

    def path(self, file_id: str) -> Path:
        """Return the path of this file's content."""
        return self._folder / file_id

    def part_path(self, part_id: str) -> Path:
        """Return the path of this upload part."""
        return self._parts / part_id

    def create_incoming(self) -> IncomingFile:
        """Return a new, empty file."""
        self.make_folders()
        return IncomingFile(self._incoming)

    def make_folders(self) -> None:
        """Create the missing folders, readable by this user only."""
        for folder in (self._folder, self._parts, self._incoming, self.orphaned):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def clean_up(self, file_ids: Collection[str], part_ids: Collection[str], deleted_ids: Collection[str]) -> int:
        """Remove unfinished files and the contents of deleted files; return how many contents were orphaned now.

        Nothing may be written meanwhile. A content without a row is moved to `orphaned`, and back once its row exists
        again: opening an empty or older database loses nothing.
        """
        self.make_folders()
        remove(self._incoming.iterdir())
        remove(path for path in _files(self._folder, self.orphaned) if path.name in deleted_ids)
        for path in _files(self.orphaned):
            if path.name in file_ids and not self.path(path.name).exists():
                path.rename(self.path(path.name))
            elif path.name in part_ids and not self.part_path(path.name).exists():
                path.rename(self.part_path(path.name))
        orphans = [path for path in _files(self._folder) if path.name not in file_ids]
        orphans += [path for path in _files(self._parts) if path.name not in part_ids]
        for path in orphans:
            path.rename(self.orphaned / path.name)
        return len(orphans)


def _files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.iterdir() if path.is_file()]


def remove(paths: Iterable[Path]) -> None:
    """Remove these files; those that are already gone are skipped."""
    for path in paths:
        path.unlink(missing_ok=True)


def copy(source: Path, target: IncomingFile) -> None:
    """Append all of `source` to `target`."""
    with source.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            target.write(chunk)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Make `target` a hard link to `source`, or a synced copy where the file system has no hard links.

    Raises:
        FileNotFoundError: `source` is gone.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        sync(Path(target))
