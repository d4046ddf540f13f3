"""Contents on disk: written aside, made durable, then renamed to the id they are known by. Knows no rows and no HTTP.

FOLDER/file-…       the content of a file
FOLDER/parts/part_… one part of an upload
FOLDER/incoming/…   what is being written; whatever lies there at start is left over from a server that died
FOLDER/orphaned/…   contents that the database doesn't know: perhaps another database does, so they are kept
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 2**20


class Incoming:
    """A content that is being written. Used as a context, which removes what wasn't published."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / secrets.token_hex(12)
        self._file: BinaryIO = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._hash = hashlib.sha256()
        self.bytes = 0

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """Of what has been written, as hexadecimal digits."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes | memoryview) -> None:
        """Adds to the end."""
        self._hash.update(chunk)
        self._file.write(chunk)
        self.bytes += len(chunk)

    def flush(self) -> None:
        """Makes all of it readable at `path`."""
        self._file.flush()

    def settle(self) -> None:
        """Makes it durable where it is. Nothing can be added any more."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def publish(self, target: Path) -> None:
        """Moves it to `target`, durably: after a power cut it is there, and whole. Quick once it is settled."""
        self.settle()
        self.path.rename(target)
        sync_folder(target.parent)


class Contents:
    """The folder of all contents."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts, self._incoming, self.orphaned = (folder / name for name in ("parts", "incoming", "orphaned"))

    def path(self, file_id: str) -> Path:
        """Where the content of this file lies."""
        return self._folder / file_id

    def part_path(self, part_id: str) -> Path:
        """Where this part of an upload lies."""
        return self._parts / part_id

    def incoming(self) -> Incoming:
        """A new content, empty."""
        self.make_folders()
        return Incoming(self._incoming)

    def make_folders(self) -> None:
        """Makes what is missing of the folders, for our eyes only."""
        for folder in (self._folder, self._parts, self._incoming, self.orphaned):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def tidy(self, file_ids: Collection[str], part_ids: Collection[str], deleted_ids: Collection[str]) -> int:
        """Removes what was being written, and contents of deleted files. Nothing may be under way.

        A content that is nobody's is put among the orphaned, and brought back when its row is there again: whoever
        opens an empty or an older database loses nothing by it. How many were put away now comes back.
        """
        self.make_folders()
        remove(self._incoming.iterdir())
        remove(path for path in _files(self._folder, self.orphaned) if path.name in deleted_ids)
        for path in _files(self.orphaned):
            if path.name in file_ids and not self.path(path.name).exists():
                path.rename(self.path(path.name))
            elif path.name in part_ids and not self.part_path(path.name).exists():
                path.rename(self.part_path(path.name))
        nobodys = [path for path in _files(self._folder) if path.name not in file_ids]
        nobodys += [path for path in _files(self._parts) if path.name not in part_ids]
        for path in nobodys:
            path.rename(self.orphaned / path.name)
        return len(nobodys)


def _files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.iterdir() if path.is_file()]


def remove(paths: Iterable[Path]) -> None:
    """Removes these files; those that are gone already are passed over."""
    for path in paths:
        path.unlink(missing_ok=True)


def copy(source: Path, target: Incoming) -> None:
    """Adds all of `source` to the end of `target`."""
    with source.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            target.write(chunk)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """`target` is the same content: a second name for it, or a durable copy where the file system gives none.

    Raises:
        FileNotFoundError: `source` is gone.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        with Path(target).open("rb") as file:
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Returns when what was made, renamed or removed in the folder would survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
