"""The hardware of this machine: CPU or GPU, memory, instruction sets. Doesn't import torch."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = (
    # limit, usage, and the file with the part that the kernel reclaims on demand: version 2, then version 1
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
_SYSTEM = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class GPU:
    """One accelerator, as its driver reports it."""

    name: str
    """The vendor's name for it."""
    memory_total_bytes: int
    """All of its memory."""
    memory_free_bytes: int
    """Currently unused memory."""


@dataclass(frozen=True)
class Device:
    """The hardware as of now."""

    kind: str
    """`cuda` when there is a GPU, else `cpu`."""
    gpus: tuple[GPU, ...]
    """Empty without a GPU."""
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


def inspect_device() -> Device:
    """Inspect the hardware. Runs nvidia-smi once if there is one."""
    gpus = _inspect_gpus()
    total, free = _inspect_memory()
    flags, cores = _inspect_cpu()
    return Device("cuda" if gpus else "cpu", gpus, total, free, cores, flags)


def core_groups() -> tuple[tuple[int, ...], ...]:
    """Return the numbers of the CPU cores that this process may use; hyperthreads of one core are grouped."""
    groups: dict[tuple[str, str], list[int]] = {}
    for _, core, number in _read_cpuinfo():
        groups.setdefault(core, []).append(number)
    return tuple(tuple(sorted(group)) for group in groups.values()) or tuple((n,) for n in sorted(_allowed_cpus()))


def _inspect_gpus() -> tuple[GPU, ...]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # no driver, or one that doesn't answer: no GPU to use
        return ()
    rows = [line.rsplit(",", 2) for line in listing.splitlines() if line.count(",") >= 2]
    return tuple(
        GPU(name.strip(), int(total) * 2**20, int(free) * 2**20)
        for name, total, free in rows
        if total.strip().isdigit() and free.strip().isdigit()
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
