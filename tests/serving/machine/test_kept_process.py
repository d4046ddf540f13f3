"""Ending a kept command harms nobody else, and always comes to its end."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from serving.machine.kept_process import KeptProcess


async def _start(folder: Path, *command: str) -> KeptProcess:
    return await KeptProcess.start(command, dict(os.environ), folder / "log", 1.0)


def test_a_command_that_has_ended_is_not_signalled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signalled: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _signal: signalled.append(group))

    async def end_then_kill() -> int:
        kept = await _start(tmp_path, sys.executable, "-c", "raise SystemExit(3)")
        code = await kept.wait()
        await kept.kill()
        return code

    assert asyncio.run(end_then_kill()) == 3
    assert signalled == []


def test_a_signal_that_is_not_allowed_does_not_keep_the_rest_from_being_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)

    async def kill() -> int:
        kept = await _start(tmp_path, sys.executable, "-c", "import time; time.sleep(600)")
        await kept.kill()
        return await kept.wait()

    assert asyncio.run(kill()) == 143
