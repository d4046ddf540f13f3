"""The parity gate as this server is set: what it compares with, and what its engines compute in. Judges nothing."""

from __future__ import annotations

from server.parity_process import ParityProcess
from serving import AdapterPlace, Device, VLLMSettings
from serving.parity import Gate
from serving.remote import Noting, RemoteEngine
from serving.vllm_arguments import cpu_dtype, runs_on_cpu


def make_gate(engines: VLLMSettings, device: Device) -> Gate:
    """The gate for adapters of engines with these settings, and of those that others run.

    engines: what all of our engines are given.
    """
    ours = cpu_dtype(engines, device) if runs_on_cpu(engines, device) else engines.dtype

    def dtype_of(place: AdapterPlace) -> str | None:
        return None if isinstance(place, RemoteEngine | Noting) else ours  # Noting: a remote one that is coming up

    return Gate(ParityProcess(), dtype_of=dtype_of)
