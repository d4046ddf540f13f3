"""Runs `python -m training.result.parity` for adapters without a reference, so that this process stays free of torch.

Also creates the parity gate with this server's settings.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Sequence

from server.jobs.run.context import NICE
from server.wire.child_process import ChildResult, run_child
from serving import Adapter, AdapterError, AdapterHost, BaseModel, Device, VLLMSettings, inspect_device
from serving.engines.remote.engine import RecordingClient, RemoteEngine
from serving.engines.vllm.arguments import cpu_dtype, runs_on_cpu
from serving.parity.gate import ParityGate
from serving.parity.reference import Reference

COMMAND = (sys.executable, "-m", "training.result.parity")
TIMEOUT_S = 900.0
"""A base of 7 billion parameters in float32 takes a minute or two to load and run on a CPU."""
_REMEDY = "Free some memory, or set parity_check to false to serve adapters unchecked."


class ParityProcess:
    """Computes references, one at a time, as each holds a whole base model in memory. A `MakeReference`."""

    def __init__(self, command: Sequence[str] = COMMAND, *, timeout_s: float = TIMEOUT_S) -> None:
        """command: the program to start; the base's and the adapter's directory are appended."""
        self._command, self._timeout_s = tuple(command), timeout_s
        self._lock = asyncio.Lock()

    async def __call__(self, adapter: Adapter, base: BaseModel) -> Reference:
        """Return PEFT's log-probabilities for the adapter on this base.

        Raises: AdapterError if they can't be computed here; the message includes the program's own error.
        """
        async with self._lock:
            child = await self._run(adapter, base)
        try:
            output = json.loads(next((line for line in child.stdout.splitlines() if line.startswith(b"{")), b""))
        except ValueError:
            output = None
        if not isinstance(output, dict):
            raise AdapterError(
                f"{adapter.name} can't be checked: the check {child}: {_get_last_line(child.stderr)} {_REMEDY}"
            )
        if "error" in output:
            raise AdapterError(f"{adapter.name} can't be checked: {output['error']} Save it again with PEFT.")
        return Reference.from_json(output)

    async def _run(self, adapter: Adapter, base: BaseModel) -> ChildResult:
        command = await asyncio.to_thread(_add_niceness, self._command)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await run_child([*command, str(base.path), str(adapter.path)], keep_stderr=True)
        except TimeoutError as error:
            raise AdapterError(
                f"{adapter.name} can't be checked: computing PEFT's log-probabilities took more than "
                f"{self._timeout_s:.0f} s. {_REMEDY}"
            ) from error


def _add_niceness(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command, on a CPU with a lower priority than the engine, which users wait for."""
    if inspect_device().kind == "cpu" and shutil.which("nice"):
        return ("nice", "-n", str(NICE), *command)
    return tuple(command)


def _get_last_line(stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return (lines[-1] if lines else "no output.")[-400:].removeprefix("error: ")


def make_gate(engines: VLLMSettings, device: Device) -> ParityGate:
    """Return the gate for adapters of engines with these settings, and of remote engines.

    engines: the settings of all our own engines.
    """
    ours = cpu_dtype(engines, device) if runs_on_cpu(engines, device) else engines.dtype

    def dtype_of(place: AdapterHost) -> str | None:
        # A RecordingClient is a remote engine that is starting.
        return None if isinstance(place, RemoteEngine | RecordingClient) else ours

    return ParityGate(ParityProcess(), dtype_of=dtype_of)
