"""Our commands as forks of one process that has loaded what they load: as `python -m MODULE …`, without its seconds.

A fork has arguments, environment, standard streams, signals and an exit custom code, and commands of ours that it
runs are its forks. What only a fresh interpreter shows, such as how much memory it takes, is started as one.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ADDRESS = "TUNELOOP_TESTS_FORKER"
"""Where the environment says what `Forker` all workers share."""


class Forker:
    """A process that loads the modules once it is asked to fork, and lives as long as this."""

    def __init__(self, *modules: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tuneloop-forker-"))
        self.address = str(self._folder / "socket")
        command = [sys.executable, "-m", "tests.forker", self.address, *modules]
        self._process = subprocess.Popen(command, cwd=Path(__file__).parents[1], start_new_session=True)
        deadline = time.monotonic() + 60
        self._leash = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        while self._leash.connect_ex(self.address):
            assert time.monotonic() < deadline, "the process to be forked doesn't come up"
            time.sleep(0.02)

    def close(self) -> None:
        """Returns when nothing of it is left, nor of its forks."""
        self._leash.close()
        self._process.wait(30)
        shutil.rmtree(self._folder)


@cache
def shared() -> Forker:
    """The one for what we run ourselves; other processes of this run find it by its address in the environment."""
    forker = Forker("tests.loaded_once")
    atexit.register(forker.close)
    os.environ[ADDRESS] = forker.address
    return forker


def shared_address() -> str:
    """Where that one is asked, started now if nobody has before."""
    return os.environ.get(ADDRESS) or shared().address


class Forked:
    """A running command. Has what `subprocess.Popen` has, as far as tests ask for it. When it is let go of, it ends."""

    def __init__(
        self, module: str, *arguments: str, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> None:
        """environment: all of it; by default ours. log: a new file for both of its output streams."""
        # Read later.
        self._out = log.open("wb+") if log else tempfile.TemporaryFile()  # noqa: SIM115
        self._err = self._out if log else tempfile.TemporaryFile()  # noqa: SIM115
        wanted = {
            "module": module,
            "arguments": arguments,
            "environment": dict(os.environ if environment is None else environment),
            "folder": str(Path.cwd()),
            "niceness": os.getpriority(os.PRIO_PROCESS, 0),
            "cores": sorted(os.sched_getaffinity(0)),
        }
        self._forker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._forker.connect(shared_address())
        with Path(os.devnull).open() as nothing:
            streams = [file.fileno() for file in (nothing, self._out, self._err)]
            socket.send_fds(self._forker, [json.dumps(wanted).encode()], streams)
        self.pid = int(self._forker.recv(64))
        """Its process id."""
        self.returncode: int | None = None
        """Its exit code; -n when signal n ended it; None while it runs, as far as has been looked."""

    def poll(self) -> int | None:
        """`returncode`, as it is now."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Sends the signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(OSError):
                self._forker.send(bytes([signum]))

    def terminate(self) -> None:
        """Asks it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises: subprocess.TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            ready, _, _ = select.select([self._forker], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired("a fork", timeout or 0)
            self.returncode = int(self._forker.recv(64) or -signal.SIGKILL)  # the process that was forked is gone
        return self.returncode

    def wait_for_output(self, text: str, timeout: float = 60) -> None:
        """Returns when it has written `text` to stdout."""
        deadline = time.monotonic() + timeout
        while text not in self._read_stream(self._out.fileno()):
            assert self.poll() is None, self._read_stream(self._err.fileno())
            assert time.monotonic() < deadline, f"no {text!r} in {timeout} s"
            time.sleep(0.01)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """(stdout, stderr) once it has ended. Raises: as `wait`."""
        self.wait(timeout)
        return self._read_stream(self._out.fileno()), self._read_stream(self._err.fileno())

    def _read_stream(self, stream: int) -> str:
        # Not by reading: the fork writes where we would have read to.
        return os.pread(stream, os.fstat(stream).st_size, 0).decode(errors="replace")


def run_forked(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 570
) -> subprocess.CompletedProcess[str]:
    """The command from its start to its end."""
    process = Forked(module, *arguments, environment=environment)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess([module, *arguments], process.wait(), out, err)
