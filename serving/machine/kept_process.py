"""One command under a keeper, from the owner's side; see `keeper`."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.errors import EngineStartError
from serving.machine.leftovers import end_session

_KEEPER = Path(__file__).with_name("keeper.py")
_KEEPER_SLACK_S = 7.0
"""Beyond the command's grace period: for killing what is left."""


class KeptProcess:
    """A running command that leaves nothing behind when it ends, however it ends."""

    def __init__(self, keeper: asyncio.subprocess.Process, session: int, executable: str, grace_s: float) -> None:
        self._keeper = keeper
        self._executable = os.path.realpath(executable)
        self._grace_s = grace_s
        self.session = session
        """Session id of the command's processes, and pid of the first."""

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_path: Path,
        grace_s: float,
        *,
        executable: str | None = None,
        cores: Sequence[int] = (),
    ) -> "KeptProcess":
        """Start the command; its output goes to `log_path`.

        environment: all of it.
        grace_s: how long the command may take to end when asked to.
        executable: what its processes eventually run, if the command's first word only leads there.
        cores: numbers of the CPU cores that it may use; all by default.
        Raises: EngineStartError when not even the keeper could be started.
        """
        with log_path.open("ab") as log:
            keeper = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(_KEEPER), *_core_arguments(cores), str(grace_s), *command,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env=environment, start_new_session=True,
            )  # fmt: skip
        started = None
        try:
            line = await keeper.stdout.readline() if keeper.stdout else b""
            if not line.strip().isdigit():
                raise EngineStartError(f"Can't start {command[0]}; see {log_path}.")
            started = cls(keeper, int(line), executable or command[0], grace_s)
        finally:
            if started is None:
                keeper.kill()  # the kernel then kills the command too
        return started

    async def wait(self) -> int:
        """Wait until nothing of the command is left; return its exit code as a shell counts it."""
        returncode = await self._keeper.wait()
        # Nothing to do, unless the keeper itself was killed.
        await asyncio.to_thread(end_session, self.session, self._executable)
        return returncode

    async def kill(self) -> None:
        """Like `stop`, but the command gets no time to end."""
        if self._keeper.returncode is None:  # after the keeper's end the number may belong to another process
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.session, signal.SIGKILL)
        await self.stop()

    async def stop(self) -> None:
        """Return once nothing of the command is left."""
        if self._keeper.stdin:
            self._keeper.stdin.close()
        try:
            # `wait_for` can lose a cancellation (gh-86296).
            async with asyncio.timeout(self._grace_s + _KEEPER_SLACK_S):
                await self._keeper.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._keeper.kill()
        await self.wait()


def _core_arguments(cores: Sequence[int]) -> tuple[str, ...]:
    return ("--cores", ",".join(map(str, cores))) if cores else ()
