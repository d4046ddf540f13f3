"""Files that others read while we write, and that a power cut may meet: written aside, synced, locked."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def write_aside(path: Path, *, aside: Path | None = None, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` afterwards: readers see the old file or the new one.

    If the block fails, `path` stays as it was.

    Args:
        path: The file to replace or to create.
        aside: The temporary path, on the same file system; by default a hidden file beside `path`.
        durable: Sync the file and its folder, so that a power cut leaves the new file whole.

    Raises: OSError.
    """
    temporary = aside or path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        if durable:
            sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Sync a file's content, or what was created, renamed or removed in a folder: it then survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def hold_lock(path: Path, in_use: Callable[[str], Exception] | None = None) -> Iterator[None]:
    """Hold the lock file `path`, with our pid in it. The system releases the lock when the process ends, however.

    Args:
        path: The file, created if there is none.
        in_use: What to raise when another process holds it, made from that process's pid ("unknown" if it hasn't
            written it yet). Without this, wait for the lock.

    Raises: OSError if the file can't be opened; what `in_use` returns.
    """
    with path.open("a+", encoding="ascii", errors="replace") as file:
        if in_use is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                pid = file.read().strip()
                raise in_use(pid if pid.isdigit() else "unknown") from error
        with contextlib.suppress(OSError):  # on a full disk: the lock counts, the pid only says whose it is
            os.truncate(file.fileno(), 0)
            os.write(file.fileno(), str(os.getpid()).encode())
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file `path`, which need not exist."""
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
