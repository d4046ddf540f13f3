"""Leftovers of an engine: finds the processes that belong to it, even if all their parents were killed.

An engine's processes share one session, whatever happens to their parents; a state file records that session, so that
the next start can end what is left of it.
"""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from adapter_format.disk import hold_lock, write_aside
from serving.errors import EngineStartError

_KILL_TIMEOUT_S = 10.0
"""A process that takes longer to die hangs in the kernel, and nothing can be done."""


@dataclass(frozen=True)
class EngineRecord:
    """One running engine, as recorded in the state file."""

    session: int
    """Session id: the pid of the session's first process."""
    started_ticks: int
    """When that process started, in clock ticks since boot: pids are reused, this isn't."""
    boot_id: str
    """Identifies the boot of the machine."""
    executable: str
    """The program that the session runs."""
    runtime_dir: str
    """The directory with its socket."""


def record_engine(state_file: Path, session: int, executable: str, runtime_dir: Path) -> None:
    """Record the running engine whose session is `session`."""
    started = _read_start_ticks(session)
    record = EngineRecord(session, started or 0, _read_boot_id(), os.path.realpath(executable), str(runtime_dir))
    with write_aside(state_file, aside=state_file.with_suffix(".part")) as file:
        file.write_text(json.dumps(asdict(record)), encoding="utf-8")


def end_leftovers(state_file: Path) -> int:
    """End what the recorded engine left behind, remove its socket's directory, and return the number of processes."""
    record = _read_record(state_file)
    if record is None:
        return 0
    ended = end_session(record.session, record.executable) if _is_same_session(record) else 0
    shutil.rmtree(record.runtime_dir, ignore_errors=True)
    state_file.unlink(missing_ok=True)
    return ended


def end_session(session: int, executable: str) -> int:
    """Kill every process of the session that runs `executable`; return how many there were, once they are gone."""
    ended: set[int] = set()
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    while time.monotonic() < deadline:
        members = session_members(session, executable)
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.update(members)
        # While it is torn down, a process has no executable any more and isn't a zombie yet.
        if not ended.intersection(session_members(session)):
            break
        time.sleep(0.02)
    return len(ended)


def session_members(session: int, executable: str | None = None) -> list[int]:
    """Return the live processes of a session, without zombies; only those running `executable` if given."""
    return [
        pid
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        if (fields := _read_stat(pid)) and int(fields[3]) == session and fields[0] != "Z"
        if executable is None or _read_executable(pid) == executable
    ]


@contextlib.contextmanager
def hold_engine_lock(state_dir: Path) -> Iterator[None]:
    """Hold the lock of a directory's engine. Raises: EngineStartError when another server holds it."""
    state_dir.mkdir(parents=True, exist_ok=True)

    def in_use(pid: str) -> EngineStartError:
        return EngineStartError(
            f"Another server (process {pid}) is running an engine for {state_dir}, and a directory can only have one "
            "server. Stop the other one, or use another data directory."
        )

    with hold_lock(state_dir / "engine.lock", in_use):
        yield


def _read_record(state_file: Path) -> EngineRecord | None:
    try:
        return EngineRecord(**json.loads(state_file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_same_session(record: EngineRecord) -> bool:
    """Return whether the session's number still refers to it: same boot, and its first process is dead or the same.

    The kernel doesn't reuse a number while a session has it.
    """
    return record.boot_id == _read_boot_id() and _read_start_ticks(record.session) in (None, record.started_ticks)


def _read_boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _read_start_ticks(pid: int) -> int | None:
    fields = _read_stat(pid)
    return int(fields[19]) if fields else None


def _read_stat(pid: int) -> list[str] | None:
    """Return /proc/PID/stat from its third field on: state, parent, process group, session, … (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _read_executable(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return None
