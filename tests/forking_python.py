"""A `python` for servers under test: a module that it is to run is a fork of a process that has loaded it already.

The server sees a process that it has started, with streams, signals and an exit code. That one is small
(`fork_asker`): it asks for the fork, gives it its streams, environment and place, passes signals on, and ends as the
fork does; when it is killed, the fork is. What only a fresh interpreter shows isn't seen here, nor is that the process
with the words of the command does the work.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.engines.vllm.arguments import ON_CPU
from tests.forked import Forker, shared_address

OURS = ("training", "training.result.parity", "training.inspection.answer")
"""What a server runs, beside engines."""
VLLM = (
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.core",
)
"""What an engine loads at its start, but for our changes to it."""


class ForkingPython:
    """The program, and the process that it has forked for engines."""

    def __init__(self) -> None:
        self._engines = Forker(*VLLM)  # of its own: what an engine loads doesn't suit a training
        self._folder = Path(tempfile.mkdtemp(prefix="tuneloop-python-"))
        addresses = dict.fromkeys(OURS, shared_address()) | {ON_CPU: self._engines.address}
        (self._folder / "addresses.json").write_text(json.dumps(addresses))
        asker = Path(__file__).with_name("fork_asker.py").read_text(encoding="utf-8")
        self.path = self._folder / "python"
        """The program."""
        self.path.write_text(f"#!{sys.executable} -IS\n{asker}")
        self.path.chmod(0o755)

    def close(self) -> None:
        """Returns when no engine of it is left."""
        self._engines.close()
        shutil.rmtree(self._folder)


def through(python: str, command: Sequence[Any]) -> tuple[Any, ...]:
    """The command with `python` in the place of the interpreter, where that is to run a module."""
    words = list(command)
    for number, (word, *after) in enumerate(zip(words, words[1:], words[2:])):  # noqa: B905 — up to the last three
        if word == sys.executable and "-m" in after:
            words[number] = python
    return tuple(words)
