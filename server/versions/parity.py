"""`python -m training.result.parity` for adapters that came without a reference: this process stays free of torch.

Also the gate as this server is set. Here is known how the program is started and read, not what is made of it.
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
"""A base of 7 billion parameters in float32 takes a minute or two to read and compute with on a CPU."""
_REMEDY = "Give it memory, or set parity_check to false to serve adapters unchecked."


class ParityProcess:
    """Makes references, one at a time: each holds a whole base model in memory. A `MakeReference`."""

    def __init__(self, command: Sequence[str] = COMMAND, *, timeout_s: float = TIMEOUT_S) -> None:
        """command: what is started with the base's and the adapter's directory as its last arguments."""
        self._command, self._timeout_s = tuple(command), timeout_s
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, adapter: Adapter, base: BaseModel) -> Reference:
        """What PEFT makes of the adapter on this base.

        Raises: AdapterError when that can't be computed here; the message holds the program's own words.
        """
        async with self._one_at_a_time:
            child = await self._run(adapter, base)
        try:
            told = json.loads(next((line for line in child.stdout.splitlines() if line.startswith(b"{")), b""))
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise AdapterError(f"{adapter.name} can't be checked: the program {child}: {_tail(child.stderr)} {_REMEDY}")
        if "error" in told:
            raise AdapterError(f"{adapter.name} can't be checked: {told['error']} Save it again with PEFT.")
        return Reference.from_json(told)

    async def _run(self, adapter: Adapter, base: BaseModel) -> ChildResult:
        command = await asyncio.to_thread(_politely, self._command)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await run_child([*command, str(base.path), str(adapter.path)], keep_stderr=True)
        except TimeoutError as error:
            raise AdapterError(
                f"{adapter.name} can't be checked: PEFT's log-probabilities weren't there in {self._timeout_s:.0f} s. "
                f"{_REMEDY}"
            ) from error


def _politely(command: Sequence[str]) -> tuple[str, ...]:
    """The command, on a CPU with a lower priority than the engine, which someone is waiting for."""
    if inspect_device().kind == "cpu" and shutil.which("nice"):
        return ("nice", "-n", str(NICE), *command)
    return tuple(command)


def _tail(stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return (lines[-1] if lines else "it said nothing.")[-400:].removeprefix("error: ")


def make_gate(engines: VLLMSettings, device: Device) -> ParityGate:
    """The gate for adapters of engines with these settings, and of those that others run.

    engines: what all of our engines are given.
    """
    ours = cpu_dtype(engines, device) if runs_on_cpu(engines, device) else engines.dtype

    def dtype_of(place: AdapterHost) -> str | None:
        return (
            None if isinstance(place, RemoteEngine | RecordingClient) else ours
        )  # RecordingClient: a remote one that is coming up

    return ParityGate(ParityProcess(), dtype_of=dtype_of)
