"""A queue of commands that one task carries out, one after the other."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Command:
    work: Callable[[], Awaitable[None]]
    done: asyncio.Future[None]


class CommandQueue:
    """A queue of commands: many submit, one runs them."""

    def __init__(self, stopped: Callable[[], Exception]) -> None:
        """stopped: makes the error for those who still wait when no more commands are run."""
        self._stopped = stopped
        self._waiting: deque[_Command] = deque()
        self._command_added = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def submit(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` in turn, and return or raise as it does. It runs even if the caller is cancelled."""
        command = _Command(work, asyncio.get_running_loop().create_future())
        self._waiting.append(command)
        self._command_added.set()
        await command.done

    async def wait(self) -> None:
        """Wait until there is a command."""
        while not self._waiting:
            self._command_added.clear()
            await self._command_added.wait()

    async def run_next(self) -> None:
        """Run the oldest command and report its result to the submitter. Raises only CancelledError."""
        command = self._waiting.popleft()
        try:
            await command.work()
        except asyncio.CancelledError:
            _fail(command, self._stopped())
            raise
        except Exception as error:  # noqa: BLE001 (it belongs to the submitter)
            _fail(command, error)
        else:
            if not command.done.done():
                command.done.set_result(None)

    def fail_all(self) -> None:
        """Fail all waiting commands."""
        while self._waiting:
            _fail(self._waiting.popleft(), self._stopped())


def _fail(command: _Command, error: Exception) -> None:
    if command.done.done():
        logger.warning("An abandoned command failed: %s", error)
    else:
        command.done.set_exception(error)
