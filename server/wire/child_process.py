"""A program that is asked something and answers on standard output. Knows nothing of the program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finished:
    """A program that has ended."""

    code: int
    """The exit code, or the negated number of the signal that killed it."""
    stdout: bytes
    stderr: bytes
    """Empty unless it was asked for."""

    def __str__(self) -> str:
        return f"was killed by signal {-self.code}" if self.code < 0 else f"ended with {self.code}"


async def run_child(command: Sequence[str], question: bytes = b"", *, keep_stderr: bool = False) -> Finished:
    """Return what came of the command, once it has ended. Cancelling the caller kills it and all that it started.

    question: written to its standard input, which stays open: it ends with this process, so that a program that
    watches it ends too, should this process be killed.
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
        process.stdin.write(question)
        with contextlib.suppress(ConnectionError):  # it died before it read: its exit code tells
            await process.stdin.drain()
        stdout, stderr = await asyncio.gather(_read(process.stdout), _read(process.stderr))
        return Finished(await process.wait(), stdout, stderr)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()
