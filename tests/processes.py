"""Processes as the kernel tells of them: who descends from whom, and who is left."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

Process = tuple[int, str]
"""A pid and when it started, which together name one process for good."""


def living() -> dict[Process, int]:
    """Every process that is no zombie → its parent's pid."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name may hold anything but ends at the last bracket; then come state, parent, …, start time.
            state, parent, *rest = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if state != "Z":
            found[int(stat.parent.name), rest[17]] = int(parent)
    return found


def family(pid: int) -> set[Process]:
    """The process and all that descend from it. Taken before it is killed: afterwards its children have other parents.

    Not by a mark in the environment: vLLM's process titles are written over it.
    """
    everyone = living()
    pids = {pid}
    while grown := {child for (child, _), parent in everyone.items() if parent in pids} - pids:
        pids |= grown
    return {process for process in everyone if process[0] in pids}


def titles(processes: set[Process]) -> str:
    """Their commands, a line each."""
    found = []
    for pid, _ in processes:
        with contextlib.suppress(OSError):  # it has ended
            found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
    return "\n".join(found)


def left_of(processes: set[Process], limit_s: float = 15) -> set[Process]:
    """Those that are still alive when the time is up; returns as soon as none is."""
    deadline = time.monotonic() + limit_s
    while (left := processes & living().keys()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left
