"""Takes an adapter out of an archive, closed by default: what isn't known to be harmless is refused.

Files come out one by one, into a folder that was empty and under names that are ours; nothing in an archive can choose
another place, become a link, or grow beyond a bound. It refuses to know whether the adapter is any good.
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
from serving.adapters.quoted import shown

MAX_ENTRIES = 256
MAX_NAME_CHARACTERS = 255
MAX_GROWTH = 20
"""Unpacked bytes for each packed one. Weights hardly shrink, a tokenizer to a tenth; a bomb grows a thousandfold."""
ALWAYS_ALLOWED_BYTES = 64 * 2**20
"""Unpacked bytes that are never too many, however small the archive."""
_WANTED = KNOWN_FILES | {MANIFEST_FILE}
_JUNK = frozenset({"__MACOSX", ".DS_Store"})


def unpack_adapter(archive: Path, folder: Path, *, max_bytes: int) -> Path:
    """The adapter's files of a .tar.gz or .zip, now in a new folder `adapter` within `folder`, which comes back.

    Of other files nothing is written. max_bytes: most that the archive may unpack to. Blocks: call it in a thread.
    Raises: ArchiveError, saying which entry breaks which rule. OSError: the disk is full.
    """
    target = folder / "adapter"
    target.mkdir(mode=0o700)
    budget = _Budget(min(max_bytes, max(ALWAYS_ALLOWED_BYTES, MAX_GROWTH * archive.stat().st_size)))
    layout = _Layout()
    with archive.open("rb") as file:
        for member in _members(file):
            name = layout.place(member)
            if name in _WANTED:
                _write(target / name, budget.counted(member.chunks))
            else:
                for _ in budget.counted(member.chunks):
                    pass
    return target


def _members(file: BinaryIO) -> Iterator[Member]:
    """By the first bytes, whatever the file is called."""
    start = file.read(4)
    file.seek(0)
    if start.startswith(GZIP_MAGIC):
        return tar_members(file)
    if start in ZIP_MAGIC:
        return zip_members(file)
    raise ArchiveError(
        f"The file begins with {start.hex(' ') or 'nothing'}, so it is neither a .tar.gz nor a .zip. Pack the "
        "adapter's folder with `tar -czf adapter.tar.gz FOLDER` or `zip -r adapter.zip FOLDER`."
    )


def _write(path: Path, chunks: Iterator[bytes]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        for chunk in chunks:
            file.write(chunk)


class _Budget:
    """How many bytes may still come out. What headers say of sizes isn't asked."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left = max_bytes

    def counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks, as long as there is room for them. Raises: ArchiveError."""
        for chunk in chunks:
            self._left -= len(chunk)
            if self._left < 0:
                raise ArchiveError(
                    f"The archive unpacks to more than {self._max_bytes} bytes, which is more than is taken, or more "
                    f"than {MAX_GROWTH} times its size. Pack the adapter's files alone."
                )
            yield chunk


class _Layout:
    """Where the entries of one archive lie: all files in one folder, each once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._entries = 0
        self._home: str | None = None

    def place(self, member: Member) -> str | None:
        """The file's name in its folder; None for a folder, and for what programs add by themselves.

        Raises: ArchiveError when the entry has no place in an adapter's archive.
        """
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise ArchiveError(f"The archive has more than {MAX_ENTRIES} entries. Pack the adapter's files alone.")
        parts = _parts(member.name)
        self._refuse_again(parts, member)
        if _JUNK.intersection(parts) or (parts and parts[-1].startswith("._")):
            return None
        if len(parts) > (1 if member.is_folder else 2):
            raise ArchiveError(
                f"The archive's entry {shown(member.name)!r} lies in a folder within a folder. "
                "Pack the adapter's files alone, at the top or in one folder."
            )
        if member.is_folder:
            return None
        if not parts:
            raise ArchiveError("The archive has a file without a name. Pack it with `tar -czf` or `zip -r`.")
        self._refuse_elsewhere("/".join(parts[:-1]), member)
        if PurePosixPath(parts[-1]).suffix.lower() in PICKLED_SUFFIXES:
            raise ArchiveError(
                f"The archive's entry {shown(member.name)!r} is a pickle, which could run code when read. "
                "Save the adapter as safetensors, and leave this file out."
            )
        return parts[-1]

    def _refuse_again(self, parts: tuple[str, ...], member: Member) -> None:
        # Two spellings of one name are one file on some file systems.
        spelling = unicodedata.normalize("NFKC", "/".join(parts)).casefold()
        if spelling in self._seen and not member.is_folder:
            raise ArchiveError(f"The archive has the entry {shown(member.name)!r} twice. Pack it again.")
        self._seen.add(spelling)

    def _refuse_elsewhere(self, folder: str, member: Member) -> None:
        if self._home not in (None, folder):
            raise ArchiveError(
                f"The archive's entry {shown(member.name)!r} lies elsewhere than the files before it. "
                "Pack one adapter, its files at the top or in one folder."
            )
        self._home = folder


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a relative path; none for the top itself. Raises: ArchiveError for everything else."""
    rest = name[2:] if name.startswith("./") else name
    rest = "" if rest == "." else rest.removesuffix("/")
    parts = tuple(rest.split("/")) if rest else ()
    is_plain = name.isprintable() and not set(name) & {"\\", ":"} and len(name) <= MAX_NAME_CHARACTERS
    if not name or not is_plain or any(part in ("", ".", "..") for part in parts):
        raise ArchiveError(
            f"The archive's entry {shown(name)!r} isn't a plain relative path: it must have 1 to {MAX_NAME_CHARACTERS} "
            "printable characters, no part '..' or empty, no backslash and no colon. Pack the adapter's folder itself."
        )
    return parts
