"""A libcuda.so.1 that says there is no device: with it the CUDA libraries load where there is no driver."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE"""


def make_stub(packages: Path, folder: Path) -> int:
    """Compiles it into `folder`, with every function of the driver that a library in `packages` wants; how many.

    Raises:
        OSError, subprocess.CalledProcessError: `gcc` or `nm` is missing or fails.
    """
    libraries = [path for path in packages.rglob("*.so*") if path.is_file() and not path.is_symlink()]
    listing = subprocess.run(
        ["nm", "--dynamic", "--undefined-only", *libraries], capture_output=True, text=True, check=False
    ).stdout
    functions = sorted(set(re.findall(r" U (cu[A-Z]\w*)", listing)))
    source = folder / "libcuda.c"
    source.write_text("".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in functions))
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", folder / "libcuda.so.1", source], check=True)
    return len(functions)
