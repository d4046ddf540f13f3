"""Runs as a `python` under `tests.forking_python`: asks for a fork in its place, and passes on what happens to it.

It is started by path, with the standard library alone, so that it stays small and starts at once.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Ends as the fork does; a command that nobody forks is run by the interpreter itself."""
    addresses = json.loads(Path(__file__).with_name("addresses.json").read_text(encoding="utf-8"))
    flag, module, *rest = *(arguments[1:] if arguments[:1] == ["-P"] else arguments), "", ""
    if flag != "-m" or module not in addresses:
        os.execv(sys.executable, [sys.executable, *arguments])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as forker:
        forker.connect(addresses[module])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: forker.send(bytes([number])))
        wanted = {
            "module": module,
            "arguments": rest[:-2],
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
            "niceness": os.getpriority(os.PRIO_PROCESS, 0),
            "cores": sorted(os.sched_getaffinity(0)),
        }
        socket.send_fds(forker, [json.dumps(wanted).encode()], [0, 1, 2])
        _let_go_of_streams()
        forker.recv(64)  # its pid
        said = forker.recv(64)
    code = int(said) if said else 1
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _let_go_of_streams() -> None:
    """Whoever reads or writes at the other end is to see what becomes of the fork's."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)


if __name__ == "__main__":
    main(sys.argv[1:])
