"""A `VLLMProcess` over a vLLM that isn't one: everything but the model is real, and a start takes half a second."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving import BaseModel, Device, VLLMProcess, VLLMSettings
from serving.engines.vllm.arguments import LaunchPlan, limits_of
from serving.errors import EngineMemoryError

FAKE_VLLM = Path(__file__).with_name("fake_vllm.py")
DEVICE = Device("cpu", (), 2**34, 2**34, 2, frozenset())


@dataclass
class FakeVLLM:
    """An engine, and the folder by which its processes are told what to do."""

    engine: VLLMProcess
    folder: Path
    socket: Path = Path()
    """Where it listens, once it was started."""

    @classmethod
    def over(cls, base: BaseModel, folder: Path, **settings: Any) -> FakeVLLM:
        """An engine that isn't started yet."""

        def plan(base: BaseModel, settings: VLLMSettings, device: Device, socket: Path) -> LaunchPlan:
            made.socket = socket
            if (folder / "no_memory").exists():
                with (folder / "no_memory").open("a") as refused:
                    refused.write("refused\n")
                raise EngineMemoryError("Not enough memory for the engine.")
            limits = limits_of(base, settings, device)
            command = (sys.executable, str(FAKE_VLLM), str(socket), str(folder), f"rank={limits.max_lora_rank}")
            return LaunchPlan(command, dict(os.environ), socket, 1.0, is_reduced=(folder / "others").exists())

        chosen = {"device": "cpu", "max_lora_rank": 8, "wait_s": 10.0, "stall_timeout_s": 60.0} | settings
        engine = VLLMProcess(base, VLLMSettings(folder / "state", folder / "log", **chosen), DEVICE, planner=plan)
        made = cls(engine, folder)
        return made

    @property
    def starts(self) -> list[str]:
        """What was told at each start of its processes."""
        return self._lines("starts")

    @property
    def asked(self) -> list[str]:
        """The paths that were asked for, but for health and metrics."""
        return [line.split()[0] for line in self._lines("asked")]

    @property
    def core(self) -> int:
        """Pid of the process that does the work."""
        return int((self.folder / "core").read_text())

    @property
    def server(self) -> int:
        """Pid of the process that talks."""
        assert self.engine.session
        return self.engine.session

    def tell(self, what: str, text: str = "") -> None:
        (self.folder / what).write_text(text)

    def untell(self, what: str) -> None:
        (self.folder / what).unlink()

    def signal(self, pid: int, number: signal.Signals) -> None:
        os.kill(pid, number)

    async def complete(self) -> int:
        """The status of one completion."""
        body = json.dumps({"model": self.engine.base.name, "prompt": "x"}).encode()
        async with self.engine.request("POST", "/v1/completions", body=body) as response:
            await response.read()
            return response.status

    def _lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


async def until(holds: Callable[[], bool], timeout_s: float = 15.0) -> float:
    """Seconds until it held; the loop goes on meanwhile."""
    started = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 (what is waited for happens in other processes)
            await asyncio.sleep(0.01)
    return time.monotonic() - started
