"""Inspects files of examples in child processes: tokenizing, and whatever takes minutes, isn't done in this process.

Runs `python -m training.inspection.answer`, limits how many run at once, and ends them with the caller.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from server.files.check import COMMAND
from server.wire.child_process import ChildResult, run_child
from server.wire.errors import BadRequest, ServerError, ServiceUnavailable

AT_ONCE = 2
"""Processes at a time. Each holds the examples of one file, and with a base about 0.5 GB of libraries."""
MOST_WAITING = 16
TIMEOUT_S = 300.0
"""For waiting and working together: 50,000 chats, with duplicates, took less than a minute."""


class Inspections:
    """Runs inspections, a few at a time; others wait in a queue."""

    def __init__(self, command: Sequence[str] = COMMAND, *, timeout_s: float = TIMEOUT_S) -> None:
        """command: the program to start; it reads the question from its standard input."""
        self._command, self._timeout_s = tuple(command), timeout_s
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def inspect(self, kind: str, **question: Any) -> Any:
        """Run an inspection and return its answer. Cancelling the caller kills the process.

        Raises:
            BadRequest: settings can't be used; `param` is the first of them.
            ServiceUnavailable: too many are waiting, or it timed out.
            ServerError: the process died.
        """
        if self._waiting >= MOST_WAITING:
            raise ServiceUnavailable(
                f"{self._waiting} file inspections are already queued. Try again later.", code="too_many_inspections"
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s), self._turns:
                child = await run_child(self._command, json.dumps({"ask": kind, **question}).encode() + b"\n")
        except TimeoutError as error:
            raise ServiceUnavailable(
                f"The file inspection took more than {self._timeout_s:.0f} s and was stopped. Try again when the "
                "machine is less busy, or use a smaller file.",
                code="inspection_timeout",
                retry_after_s=30,
            ) from error
        finally:
            self._waiting -= 1
        return await asyncio.to_thread(_parse_output, child)  # it may be many MB, and must not block the event loop


def _parse_output(child: ChildResult) -> Any:
    try:
        output: Mapping[str, Any] = json.loads(child.stdout) if child.code == 0 else {}
    except ValueError:
        output = {}
    if "answer" in output:
        return output["answer"]
    if output.get("refused"):
        first, *others = output["refused"]
        text = " ".join([first["message"], *(other["message"] for other in others)])
        raise BadRequest(text, param=first["param"], code="invalid_value")
    raise ServerError(
        f"The file inspection {child}. The machine may be out of memory: free some, or use a smaller file.",
        code="inspection_failed",
    )
