"""The adapters directory, the source of truth: its adapters by name, read again whenever it changes."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from adapter_format.files import CONFIG_FILE, MANIFEST_FILE
from serving.adapters.adapter import Adapter, read_adapter, scan_adapters
from serving.adapters.names import remember_removed
from serving.base_model import BaseModel

_SETTLED_NS = 100_000_000
"""A directory's modification time advances in steps of some milliseconds: a recent one may hide a later change."""

_Stamp = tuple[tuple[int, int] | None, ...]
"""Modification time in nanoseconds and size of each file that identifies an adapter; None for a missing one."""

logger = logging.getLogger(__name__)


class AdapterDirectory:
    """The adapters of one directory that belong to the served bases. Thread-safe."""

    def __init__(self, adapters_dir: Path, bases: Mapping[str, BaseModel]) -> None:
        """adapters_dir: created if absent.

        bases: sha256 → base model, for each that is served; the first is for adapters that don't say.
        """
        adapters_dir.mkdir(parents=True, exist_ok=True)
        for half_removed in adapters_dir.glob(".removed-adapter-*"):
            shutil.rmtree(half_removed, ignore_errors=True)
        self.path = adapters_dir
        self._bases = bases
        self._lock = threading.Lock()
        self._scanned: tuple[int, int] | None = None
        self._by_name: dict[str, Adapter] = {}
        self._by_id: dict[str, Adapter] = {}
        self._known: dict[str, tuple[_Stamp, Adapter]] = {}
        self._broken: dict[str, str] = {}
        self._foreign: dict[str, str] = {}

    def adapters(self) -> list[Adapter]:
        """Return those that belong to a served base, oldest first."""
        self._rescan()
        return list(self._by_name.values())

    def find(self, id_or_name: str) -> Adapter | None:
        """Return the adapter of this id or name."""
        self._rescan()
        return self._by_name.get(id_or_name) or self._by_id.get(id_or_name)

    def broken(self) -> Mapping[str, str]:
        """Return directory name → why it can't be served."""
        self._rescan()
        return self._broken

    def reason_unavailable(self, id_or_name: str) -> str | None:
        """Return why an adapter that exists can't be served; None if nothing is known."""
        return self._broken.get(id_or_name) or self._foreign.get(id_or_name)

    def base_of(self, adapter: Adapter) -> BaseModel:
        """Return the base that the adapter is served on."""
        return self._bases.get(adapter.base_model_sha256 or "") or next(iter(self._bases.values()))

    def reread(self, adapter: Adapter) -> Adapter:
        """Return the adapter with its current manifest. Raises: AdapterError."""
        fresh = read_adapter(adapter.path)
        with self._lock:
            if fresh.name in self._by_name:
                self._by_name[fresh.name] = self._by_id[fresh.id] = fresh
        return fresh

    def invalidate(self) -> None:
        """Make the next look-up read the directory again."""
        self._scanned = None

    def _rescan(self) -> None:
        """Read the directory again if it has changed."""
        with self._lock:
            modified, now = self.path.stat().st_mtime_ns, time.time_ns()
            if self._scanned and self._scanned[0] == modified and self._scanned[1] - modified > _SETTLED_NS:
                return
            adapters, broken = self._scan()
            foreign = {adapter.name: reason for adapter in adapters if (reason := self._foreign_reason(adapter))}
            broken |= {adapter.path.name: foreign[adapter.name] for adapter in adapters if adapter.name in foreign}
            for directory in broken.keys() - self._broken.keys():
                logger.warning("%s isn't served: %s", directory, broken[directory])
            known = [adapter for adapter in adapters if adapter.name not in foreign]
            self._by_name = {adapter.name: adapter for adapter in known}
            self._by_id = {adapter.id: adapter for adapter in self._by_name.values()}
            self._foreign, self._broken = foreign, broken
            self._scanned = (modified, now)

    def _scan(self) -> tuple[list[Adapter], dict[str, str]]:
        """Like `scan_adapters`; reads only what has changed since the last time."""
        known, self._known = self._known, {}

        def read(path: Path) -> Adapter:
            stamp, before = _stamp(path), known.get(path.name)
            if before is None or before[0] != stamp:
                before = stamp, read_adapter(path)
            self._known[path.name] = before
            return before[1]

        return scan_adapters(self.path, read)

    def _foreign_reason(self, adapter: Adapter) -> str | None:
        """Return why this adapter belongs to no served base model; None if it does."""
        if adapter.base_model_sha256 is None or adapter.base_model_sha256 in self._bases:
            return None
        served = " and ".join(f"{base.name!r} ({base.sha256[:12]}…)" for base in self._bases.values())
        return (
            f"{adapter.name} was trained on {adapter.base_model!r} with different weights "
            f"({adapter.base_model_sha256[:12]}…) than the base models served here: {served}. Serve it on its own "
            "base model, or train it again."
        )


def delete_adapter(adapter: Adapter, *, keep_name_taken: bool = True) -> None:
    """Delete the adapter from its directory; it is never seen half deleted.

    keep_name_taken: whether its name may never be used again.
    """
    if keep_name_taken:
        remember_removed(adapter.path.parent, adapter.name)
    aside = adapter.path.with_name(f".removed-{adapter.path.name}")
    adapter.path.rename(aside)
    shutil.rmtree(aside)


def _stamp(path: Path) -> _Stamp:
    return tuple(_file_stamp(path / name) for name in (CONFIG_FILE, MANIFEST_FILE))


def _file_stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
