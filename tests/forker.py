"""`python -m tests.forker ADDRESS MODULE…`: loads the modules and forks itself for whoever asks at the address.

Who asks says what is to run and where, hands three streams over, and is told the fork's pid and, at its end, its exit
code; a byte from him is a signal for the fork, and when he is gone, the fork is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

MOST_BYTES = 2**20
"""Of a question."""
_M_MMAP_THRESHOLD = -3
"""From malloc.h."""


def main(address: str, modules: Sequence[str]) -> None:
    """Forks until he is gone who came first, and who isn't forked for; then all forks are killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen(64)
        leash, _ = listening.accept()
        forks: list[_Fork] = []
        try:
            while True:
                askers = {fork.asker: fork for fork in forks}
                ends = {fork.ended: fork for fork in forks}
                ready, _, _ = select.select([leash, listening, *askers, *ends], [], [])
                if leash in ready:
                    return
                if listening in ready:
                    forks += _Fork.asked_for(listening, [leash, *askers], modules)
                for place in ready:
                    if place in ends:
                        ends[place].tell_end()
                        forks.remove(ends[place])
                    elif place in askers and askers[place] in forks:
                        askers[place].pass_on()
        finally:
            for fork in forks:
                fork.kill()


class _Fork:
    """A fork, seen from the process that was forked."""

    def __init__(self, asker: socket.socket, pid: int) -> None:
        self.asker, self._pid = asker, pid
        self.ended = os.pidfd_open(pid)
        """Can be read from once the fork has ended."""

    @classmethod
    def asked_for(
        cls, listening: socket.socket, others: Iterable[socket.socket], modules: Iterable[str]
    ) -> list[_Fork]:
        """The fork that somebody asks for now; none if he died before he could say what he wants.

        The modules are loaded for the first who asks, in his environment.
        """
        asker, _ = listening.accept()
        said, streams, _, _ = socket.recv_fds(asker, MOST_BYTES, 3)
        if not said:
            asker.close()
            return []
        wanted = json.loads(said)
        if modules and not set(modules) <= sys.modules.keys():
            os.environ.update(wanted["environment"])
            for module in modules:
                import_module(module)
        if pid := os.fork():
            for stream in streams:
                os.close(stream)
            made = cls(asker, pid)
            made._tell(pid)
            return [made]
        code = 1
        try:
            for inherited in (listening, asker, *others):
                inherited.close()
            code = _run(wanted, streams)
        finally:
            os._exit(code)

    def pass_on(self) -> None:
        """A signal from the asker; where he is gone, the fork goes, too."""
        said = b""
        with contextlib.suppress(OSError):
            said = self.asker.recv(1)
        if said:
            os.kill(self._pid, said[0])
        else:
            self.kill()

    def kill(self) -> None:
        """Kills the fork, and what it has started."""
        os.kill(self._pid, signal.SIGKILL)
        self._kill_group()

    def tell_end(self) -> None:
        """Tells the asker how the fork has ended, of which nothing is left."""
        _, status = os.waitpid(self._pid, 0)
        self._kill_group()
        self._tell(os.waitstatus_to_exitcode(status))
        self.asker.close()
        os.close(self.ended)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)

    def _tell(self, number: int) -> None:
        with contextlib.suppress(OSError):  # he has gone first
            self.asker.send(str(number).encode())


def _run(wanted: dict[str, Any], streams: Sequence[int]) -> int:
    """Runs in the fork; its exit code."""
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 — as long as the process
        os.setpriority(os.PRIO_PROCESS, 0, wanted["niceness"])
        os.sched_setaffinity(0, wanted["cores"])
        os.chdir(wanted["folder"])
        os.environ.clear()
        os.environ.update(wanted["environment"])
        if threads := os.environ.get("OMP_NUM_THREADS"):
            import torch  # is loaded, and with it OpenMP, which has read the environment once for all

            torch.set_num_threads(int(threads))
        if threshold := os.environ.get("MALLOC_MMAP_THRESHOLD_"):  # glibc, too, has read the environment before
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, int(threshold))
        atexit._clear()  # what the server would do at its end
        subprocess.run = _run_ours_as_fork
        _become(wanted["module"], wanted["arguments"])
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:  # noqa: BLE001 — as the interpreter does at its end
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads that aren't daemons
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    return int(code) & 0xFF


def _become(module: str, arguments: Sequence[str]) -> None:
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()


_run_program = subprocess.run


def _run_ours_as_fork(command: Any, **settings: Any) -> Any:
    """In place of `subprocess.run`, for a command that waits for a module of ours and asks nothing more of it."""
    if any(settings.values()) or list(command[:2]) != [sys.executable, "-m"]:
        return _run_program(command, **settings)
    process = multiprocessing.get_context("fork").Process(target=_become, args=(command[2], command[3:]))
    process.start()
    process.join()
    return subprocess.CompletedProcess(command, process.exitcode)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
