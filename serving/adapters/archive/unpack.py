"""Extracts an adapter from an archive, with an allow-list: what isn't known to be harmless is rejected.

Files are written one by one, into an empty folder and under names that we choose; nothing in an archive can choose
another location, become a link, or exceed a bound. `check` decides whether the adapter can be served.
"""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from adapter_format.files import MANIFEST_FILE
from serving.adapters.archive.member import ArchiveError, Member
from serving.adapters.archive.tar import GZIP_MAGIC, tar_members
from serving.adapters.archive.zip import ZIP_MAGIC, zip_members
from serving.adapters.check import PICKLED_SUFFIXES
from serving.adapters.importing import KNOWN_FILES
from serving.errors import quote

MAX_ENTRIES = 256
MAX_NAME_CHARACTERS = 255
MAX_GROWTH = 20
"""Unpacked bytes per packed byte. Weights hardly compress, a tokenizer to a tenth; a zip bomb grows a thousandfold."""
ALWAYS_ALLOWED_BYTES = 64 * 2**20
"""Unpacked bytes that are always allowed, however small the archive."""
_WANTED = KNOWN_FILES | {MANIFEST_FILE}
_JUNK = frozenset({"__MACOSX", ".DS_Store"})


def unpack_adapter(archive: Path, folder: Path, *, max_bytes: int) -> Path:
    """Unpack the adapter's files of a .tar.gz or .zip into a new folder `adapter` within `folder`, and return it.

    Other files are not written. max_bytes: maximum unpacked size. Blocks: call it in a thread.
    Raises: ArchiveError, saying which entry breaks which rule. OSError: the disk is full.
    """
    target = folder / "adapter"
    target.mkdir(mode=0o700)
    budget = _Budget(min(max_bytes, max(ALWAYS_ALLOWED_BYTES, MAX_GROWTH * archive.stat().st_size)))
    layout = _Layout()
    with archive.open("rb") as file:
        for member in _members(file):
            name = layout.locate(member)
            if name in _WANTED:
                _write(target / name, budget.limit(member.chunks))
            else:
                for _ in budget.limit(member.chunks):
                    pass
    return target


def _members(file: BinaryIO) -> Iterator[Member]:
    """Choose the format by the first bytes, whatever the file's name."""
    start = file.read(4)
    file.seek(0)
    if start.startswith(GZIP_MAGIC):
        return tar_members(file)
    if start in ZIP_MAGIC:
        return zip_members(file)
    raise ArchiveError(
        f"The file is neither a .tar.gz nor a .zip: it starts with {start.hex(' ') or 'nothing'}. Pack the "
        "adapter's folder with `tar -czf adapter.tar.gz FOLDER` or `zip -r adapter.zip FOLDER`."
    )


def _write(path: Path, chunks: Iterator[bytes]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        for chunk in chunks:
            file.write(chunk)


class _Budget:
    """How many more bytes may be unpacked. The sizes in headers are not trusted."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left = max_bytes

    def limit(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks while they are within the budget. Raises: ArchiveError."""
        for chunk in chunks:
            self._left -= len(chunk)
            if self._left < 0:
                raise ArchiveError(
                    f"The archive unpacks to more than the limit of {self._max_bytes} bytes, or more than "
                    f"{MAX_GROWTH} times its size. Pack only the adapter's files."
                )
            yield chunk


class _Layout:
    """The layout of one archive: all files in one folder, each once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._entries = 0
        self._folder: str | None = None

    def locate(self, member: Member) -> str | None:
        """Return the file's name in its folder; None for a folder, and for files that archivers add by themselves.

        Raises: ArchiveError when the entry doesn't belong in an adapter's archive.
        """
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise ArchiveError(f"The archive has more than {MAX_ENTRIES} entries. Pack only the adapter's files.")
        parts = _split_path(member.name)
        self._refuse_duplicate(parts, member)
        if _JUNK.intersection(parts) or (parts and parts[-1].startswith("._")):
            return None
        if len(parts) > (1 if member.is_folder else 2):
            raise ArchiveError(
                f"The archive's entry {quote(member.name)!r} is in a nested folder. Pack only the adapter's files, "
                "at the top level or in one folder."
            )
        if member.is_folder:
            return None
        if not parts:
            raise ArchiveError("The archive has a file with no name. Pack it with `tar -czf` or `zip -r`.")
        self._refuse_other_folder("/".join(parts[:-1]), member)
        if PurePosixPath(parts[-1]).suffix.lower() in PICKLED_SUFFIXES:
            raise ArchiveError(
                f"The archive's entry {quote(member.name)!r} is a pickle, which can run code when loaded. Save the "
                "adapter as safetensors, and leave out this file."
            )
        return parts[-1]

    def _refuse_duplicate(self, parts: tuple[str, ...], member: Member) -> None:
        # Two spellings of one name are the same file on some file systems.
        spelling = unicodedata.normalize("NFKC", "/".join(parts)).casefold()
        if spelling in self._seen and not member.is_folder:
            raise ArchiveError(f"The archive has the entry {quote(member.name)!r} twice. Pack it again.")
        self._seen.add(spelling)

    def _refuse_other_folder(self, folder: str, member: Member) -> None:
        if self._folder not in (None, folder):
            raise ArchiveError(
                f"The archive's entry {quote(member.name)!r} is in a different folder than the files before it. "
                "Pack one adapter, with its files at the top level or in one folder."
            )
        self._folder = folder


def _split_path(name: str) -> tuple[str, ...]:
    """Return the parts of a relative path; none for the top itself. Raises: ArchiveError for anything else."""
    rest = name[2:] if name.startswith("./") else name
    rest = "" if rest == "." else rest.removesuffix("/")
    parts = tuple(rest.split("/")) if rest else ()
    is_plain = name.isprintable() and not set(name) & {"\\", ":"} and len(name) <= MAX_NAME_CHARACTERS
    if not name or not is_plain or any(part in ("", ".", "..") for part in parts):
        raise ArchiveError(
            f"The archive's entry {quote(name)!r} isn't a plain relative path: it must have 1 to {MAX_NAME_CHARACTERS} "
            "printable characters, no part '..' or empty, no backslash and no colon. Pack the adapter's folder itself."
        )
    return parts
