"""GPUs that aren't here: a stand-in for nvidia-smi that names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Card:
    """A GPU as its driver describes it."""

    name: str
    memory_mib: int
    capability: tuple[int, int]
    """Compute capability, by which kernels are chosen."""
    free_mib: int | None = None
    """Default: all but what a driver takes."""


RTX_3070 = Card("NVIDIA GeForce RTX 3070", 8192, (8, 6))
T4 = Card("Tesla T4", 15360, (7, 5))
RTX_3060 = Card("NVIDIA GeForce RTX 3060", 12288, (8, 6))
RTX_4090 = Card("NVIDIA GeForce RTX 4090", 24564, (8, 9))
DESKTOP_4090 = Card("NVIDIA GeForce RTX 4090", 24564, (8, 9), free_mib=21000)
A100_40 = Card("NVIDIA A100-PCIE-40GB", 40960, (8, 0))
L40S = Card("NVIDIA L40S", 46068, (8, 9))
H100 = Card("NVIDIA H100 80GB HBM3", 81559, (9, 0))
RTX_5090 = Card("NVIDIA GeForce RTX 5090", 32607, (12, 0))
B200 = Card("NVIDIA B200", 183359, (10, 0))


def write_nvidia_smi(folder: Path, *cards: Card, driver: str = "580.95.05") -> Path:
    """A program in `folder` that answers tuneloop's question as a machine with these cards would; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(
        f"{number}, GPU-{number:08x}, {driver}, {card.capability[0]}.{card.capability[1]}, {card.name}, "
        f"{card.memory_mib}, "
        f"{card.memory_mib - 500 if card.free_mib is None else card.free_mib}\n"
        for number, card in enumerate(cards)
    )
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{rows}END\n")
    program.chmod(0o755)
    return folder
