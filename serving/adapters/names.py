"""Names of adapters: a name is never reused for other bytes, not even that of a removed adapter.

vLLM keeps parts of prompts under (name, path), and people keep names in their programs.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.adapters.adapter import scan_adapters
from serving.base_model import BaseModel
from serving.errors import AdapterError

REMOVED_NAMES = ".removed-names"
"""The file in the adapters directory with the names of removed adapters: a JSON string per line."""
_NAME = re.compile(r"[A-Za-z0-9][\w.:/@+-]{0,199}", re.ASCII)
_PATH_LIKE = re.compile(r"(?:^|[/:])\.{1,2}(?:[/:]|$)|//|[/:]$")
_RESERVED = re.compile(r"ft:|adapter-[0-9a-f]{16}\Z|.*:ckpt-step-\d+\Z", re.IGNORECASE)


class AdapterNameError(AdapterError):
    """A name that no adapter may have."""


class NameTakenError(AdapterNameError):
    """A name that is or was in use."""


def check_name(name: str) -> None:
    """Raise AdapterNameError unless the name is valid for an adapter."""
    if not _NAME.fullmatch(name):
        raise AdapterNameError(
            f"The name {name[:200]!r} must be 1 to 200 letters, digits or any of ._:/@+- and start with a letter or "
            "digit. Choose another name."
        )
    if _PATH_LIKE.search(name):
        raise AdapterNameError(
            f"The name {name!r} looks like a path: no part of it may be '.', '..' or empty. Choose another name."
        )


def check_chosen_name(name: str) -> None:
    """Like `check_name`, for a name chosen by a user: the forms that tuneloop generates are reserved.

    Raises: AdapterNameError.
    """
    check_name(name)
    if _RESERVED.match(name):
        raise AdapterNameError(
            f"The name {name!r} is reserved for models trained here: ft:…, …:ckpt-step-N and adapter-…. Choose "
            "another name, or set only a suffix."
        )


def taken_names(adapters_dir: Path, base: BaseModel) -> set[str]:
    """Return every name that is or was an adapter's, and the base's own."""
    return {adapter.name for adapter in scan_adapters(adapters_dir)[0]} | _removed_names(adapters_dir) | {base.name}


def check_free(name: str, adapters_dir: Path, base: BaseModel) -> None:
    """Raise NameTakenError when the name is or was an adapter's, or is the base's."""
    if name in taken_names(adapters_dir, base):
        raise NameTakenError(
            f"The name {name!r} is already used, possibly by a removed adapter; names can't be reused. Choose "
            "another name."
        )


def remember_removed(adapters_dir: Path, name: str) -> None:
    """Record durably that the adapter of this name is removed; call it before its files are deleted. Idempotent."""
    with lock_names(adapters_dir):
        if name in _removed_names(adapters_dir):
            return
        with (adapters_dir / REMOVED_NAMES).open("ab") as file:
            # A power failure may have left half a line at the end.
            file.write(b"\n" * _ends_in_partial_line(adapters_dir / REMOVED_NAMES) + json.dumps(name).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def lock_names(adapters_dir: Path) -> Iterator[None]:
    """Hold the lock on names, across processes, while the context is open."""
    folder = os.open(adapters_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _removed_names(adapters_dir: Path) -> set[str]:
    try:
        lines = (adapters_dir / REMOVED_NAMES).read_bytes().splitlines()
    except FileNotFoundError:
        return set()
    return {name for name in map(_parse_name, lines) if name}


def _parse_name(line: bytes) -> str | None:
    """Return the name in a line; None where a power failure left half of one."""
    try:
        name = json.loads(line)
    except ValueError:
        return None
    return name if isinstance(name, str) else None


def _ends_in_partial_line(file: Path) -> bool:
    content = file.read_bytes()
    return bool(content) and not content.endswith(b"\n")
