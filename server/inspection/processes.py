"""Asks about files of examples in a process of its own: what needs a tokenizer, or minutes, is not done in this one.

Knows how `python -m training.inspection.answer` is asked and read, how many run at once, and that none outlives its
asker. It refuses to know what is asked.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from server.wire.child_process import ChildResult, run_child
from server.wire.errors import BadRequest, ServerError, ServiceUnavailable

COMMAND = (sys.executable, "-m", "training.inspection.answer")
AT_ONCE = 2
"""Processes at a time. Each holds the examples of one file, and with a base some 0.5 GB of libraries."""
MOST_WAITING = 16
TIMEOUT_S = 300.0
"""For waiting and working together: 50,000 chats, duplicates and all, took less than a minute."""


class Inspections:
    """The processes, a few at a time; the others wait for their turn."""

    def __init__(self, command: Sequence[str] = COMMAND, *, timeout_s: float = TIMEOUT_S) -> None:
        """command: what is started, the question on its standard input."""
        self._command, self._timeout_s = tuple(command), timeout_s
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def ask(self, ask: str, **question: Any) -> Any:
        """The answer. Cancelling the task that waits here ends the process.

        Raises:
            BadRequest: a setting can't be used; `param` is the first of them.
            ServiceUnavailable: too many others wait, or it took too long.
            ServerError: the process died.
        """
        if self._waiting >= MOST_WAITING:
            raise ServiceUnavailable(
                f"{self._waiting} inspections of files wait already. Try again soon.", code="too_many_inspections"
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s), self._turns:
                child = await run_child(self._command, json.dumps({"ask": ask, **question}).encode() + b"\n")
        except TimeoutError as error:
            raise ServiceUnavailable(
                f"The inspection had no answer after {self._timeout_s:.0f} s and was ended. Try again when the machine "
                "is less busy, or give a smaller file.",
                code="inspection_timeout",
                retry_after_s=30,
            ) from error
        finally:
            self._waiting -= 1
        return await asyncio.to_thread(_read, child)  # it may be many MB, and others wait for the event loop


def _read(child: ChildResult) -> Any:
    try:
        told: Mapping[str, Any] = json.loads(child.stdout) if child.code == 0 else {}
    except ValueError:
        told = {}
    if "answer" in told:
        return told["answer"]
    if told.get("refused"):
        first, *others = told["refused"]
        text = " ".join([first["message"], *(other["message"] for other in others)])
        raise BadRequest(text, param=first["param"], code="invalid_value")
    raise ServerError(
        f"The process that inspects files {child}. Memory may have run out: free some, or give a smaller file.",
        code="inspection_failed",
    )
