"""Runs a command so that nothing of it outlives us: `python keeper.py [--cores 0,1] GRACE_S COMMAND…`, standard input a
pipe.

Started by path, with the standard library alone, so that it stays small and starts at once.

The owner holds the pipe's other end, so the pipe ends when the owner closes it or dies, however it dies. Then, or on
SIGTERM, or when the command itself ends, every process that descends from the command is killed. Three nets ensure it:
- the keeper is a subreaper: processes that the command's processes orphan become the keeper's own children;
- the command gets SIGKILL from the kernel when the keeper dies (PR_SET_PDEATHSIG);
- the command leads a session of its own, so the owner can find the rest by session when the keeper is killed.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code; 128 + n if signal n ended it."""
    if arguments[0] == "--cores":  # inherited by the command and its descendants
        os.sched_setaffinity(0, {int(core) for core in arguments[1].split(",")})
        arguments = arguments[2:]
    grace_s, command = float(arguments[0]), arguments[1:]
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    keeper = os.getpid()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
        preexec_fn=lambda: _die_with_keeper(keeper),
    )
    with contextlib.suppress(BrokenPipeError):
        print(process.pid, flush=True)  # the owner reads the session's id from here
    sys.stdout.close()
    _wait_for_end(process, sys.stdin.fileno(), wake_read)
    _end_command(process, grace_s)
    _kill_descendants()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _die_with_keeper(keeper: int) -> None:
    """Runs in the new process before the command: asks the kernel to kill it when the keeper dies."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:  # it died before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_end(process: subprocess.Popen[bytes], pipe: int, wake: int) -> None:
    """Wait until the command has ended, the owner's pipe has ended, or a signal has come."""
    exited = os.pidfd_open(process.pid)
    select.select([exited, pipe, wake], [], [])
    os.close(exited)


def _end_command(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ask the command to end, and kill it after `grace_s`."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    process.kill()
    process.wait()


def _kill_descendants() -> None:
    """Kill every child, and those that become children because their parent was killed, until there are none."""
    while True:
        for pid in _list_children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.02)


def _list_children() -> list[int]:
    """Return our own children, including zombies."""
    me, found = os.getpid(), []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The command's name, in parentheses, may contain anything; the fields after it are state and parent.
            if int(stat.read_text().rpartition(")")[2].split()[1]) == me:
                found.append(int(stat.parent.name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
