"""Our commands as forks of one process that has loaded what they load: as `python -m MODULE …`, without its seconds.

A fork has arguments, environment, standard streams, signals and an exit code of its own, and commands of ours that it
runs are its forks. What only a fresh interpreter shows, such as how much memory it takes, is started as one.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["tests.loaded_once"])


class Forked:
    """A running command. Has what `subprocess.Popen` has, as far as tests ask for it."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """environment: all of it; by default ours."""
        self._out, self._err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115 — read later
        streams = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (self._out, self._err)]
        given = (module, arguments, dict(os.environ if environment is None else environment), str(Path.cwd()), streams)
        self._process = _server.Process(target=_run, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code; -n when signal n ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As `returncode`."""
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        """Sends the signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Asks it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises: subprocess.TimeoutExpired after `timeout` seconds."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a fork", timeout or 0)
        return self._process.exitcode

    def wait_for_output(self, text: str, timeout: float = 60) -> None:
        """Returns when it has written `text` to stdout."""
        deadline = time.monotonic() + timeout
        while text not in self._written(self._out):
            assert self.poll() is None, self._written(self._err)
            assert time.monotonic() < deadline, f"no {text!r} in {timeout} s"
            time.sleep(0.01)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """(stdout, stderr) once it has ended. Raises: as `wait`."""
        self.wait(timeout)
        return self._written(self._out), self._written(self._err)

    def _written(self, file: TextIO) -> str:
        file.seek(0)
        return file.read()


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


def _run(module: str, arguments: tuple[str, ...], environment: dict[str, str], folder: str, streams: list[str]) -> None:
    """Runs in the fork."""
    for number, path in enumerate(streams, 1):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    atexit._clear()  # what the server would do at its end
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    subprocess.run = _run_ours_as_fork
    _become(module, arguments)


def _become(module: str, arguments: Sequence[str]) -> None:
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()


_run_program = subprocess.run


def _run_ours_as_fork(command: Any, **settings: Any) -> Any:
    """In place of `subprocess.run`, for a command that waits for a module of ours and asks nothing more of it."""
    if settings or list(command[:2]) != [sys.executable, "-m"]:
        return _run_program(command, **settings)
    process = multiprocessing.get_context("fork").Process(target=_become, args=(command[2], command[3:]))
    process.start()
    process.join()
    return subprocess.CompletedProcess(command, process.exitcode)
