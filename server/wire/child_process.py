"""Runs a child process that reads its input from stdin and answers on stdout."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ChildResult:
    """The result of a child process that has ended."""

    code: int
    """The exit code, or the negated number of the signal that killed it."""
    stdout: bytes
    stderr: bytes
    """Empty unless `keep_stderr` was set."""

    def __str__(self) -> str:
        return f"was killed by signal {-self.code}" if self.code < 0 else f"ended with {self.code}"


async def run_child(command: Sequence[str], stdin: bytes = b"", *, keep_stderr: bool = False) -> ChildResult:
    """Run the command to its end and return its result. Cancelling the caller kills it and all its children.

    stdin: written to its standard input, which then stays open. It closes when this process dies, so that a child
    that watches it can end as well.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if keep_stderr else None,
        start_new_session=True,
    )
    try:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("asyncio made no pipes")
        if stdin:
            # It may have died before it reads: its exit code tells. On a closed pipe uvloop raises RuntimeError.
            with contextlib.suppress(ConnectionError, RuntimeError):
                process.stdin.write(stdin)
                await process.stdin.drain()
        stdout, stderr = await asyncio.gather(_read(process.stdout), _read(process.stderr))
        return ChildResult(await process.wait(), stdout, stderr)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()
