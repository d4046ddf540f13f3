"""`python -m tests.gpu.check`: whether the CUDA packages beside this Python make an engine that starts. Needs no GPU.

It proves installation, imports, parsers and configurations, never a kernel. Run by requirements/check_gpu.sh.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from server.app.engines import build_engine_settings
from server.app.sharing import share_accelerator
from server.settings import Settings
from serving import BaseModel, inspect_device
from serving.engines.vllm.arguments import LaunchPlan, plan_launch
from tests.gpu.bases import write_base
from tests.gpu.cards import B200, H100, RTX_4090, RTX_5090, T4, Card, write_nvidia_smi
from tests.gpu.stub_driver import make_stub

SERVER = "vllm.entrypoints.openai.api_server"
ON_CARDS = {
    T4: "Qwen2.5-1.5B-Instruct",
    RTX_4090: "Qwen2.5-7B-Instruct",
    H100: "Llama-3.1-8B-Instruct",
    RTX_5090: "Qwen3-8B",
    B200: "Qwen2.5-32B-Instruct",
}
CASES: Mapping[str, dict[str, Any]] = {
    "default": {},
    "tools": {"tool_call_parser": "hermes", "max_lora_rank": 128, "dtype": "float16"},
    "sleep": {"accelerator_policy": "sleep"},
    "two GPUs": {"engine_args": ["--tensor-parallel-size", "2"]},
}
NOBODY_IMPORTS = {"build_backend.py"}
"""Scripts that packages are built with, and that some leave beside all packages."""
TIMEOUT_S = 300
Outcome = tuple[str, bool, str]
"""(what was looked at, whether it is right, what was found)"""


def main() -> int:
    """Prints a line for each check and the verdict; 1 where one failed."""
    started, failed = time.monotonic(), 0
    packages = Path(sysconfig.get_path("purelib"))
    with tempfile.TemporaryDirectory(prefix="tuneloop-gpu-") as place:
        for what, is_right, found in chain(_installed(packages), _started(packages, Path(place))):
            failed += not is_right
            print(f"{'ok  ' if is_right else 'FAIL'}  {what}: {found}", flush=True)
    verdict = "nothing that was looked at keeps an engine from starting"
    if failed:
        verdict = f"{failed} of the checks failed: an engine would not start"
    print(f"{'FAIL' if failed else 'ok  '}  verdict: {verdict} ({time.monotonic() - started:.0f} s; no kernel was run)")
    return 1 if failed else 0


def _installed(packages: Path) -> Iterator[Outcome]:
    yield _torch()
    yield _majors()
    yield _shared_files(packages)
    uv = [Path(sys.executable).with_name("uv"), "pip", "check", "--quiet", "--python", sys.executable]
    checked = subprocess.run(uv, capture_output=True, text=True, check=False)
    yield "requirements of the packages", checked.returncode == 0, checked.stderr.strip() or "all are met"


def _torch() -> Outcome:
    told = _python("import torch; print(torch.__version__, torch.version.cuda or 'no CUDA')", os.environ)
    return "torch", told.returncode == 0 and "no CUDA" not in told.stdout, _last_line(told)


def _majors() -> Outcome:
    """The CUDA that torch was built for is in the name of the cuDNN that its wheel asks for."""
    names = [str(one.name) for one in importlib.metadata.distributions()]
    versions = {name: importlib.metadata.version(name) for name in ("cuda-python", "cuda-bindings") if name in names}
    cuda = {name.removeprefix("nvidia-cudnn-cu") for name in names if name.startswith("nvidia-cudnn-cu")}
    is_one = len(versions) == 2 and {version.split(".")[0] for version in versions.values()} == cuda
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "CUDA's Python packages", is_one, f"{found}, torch's CUDA {' and '.join(sorted(cuda)) or 'unknown'}"


def _shared_files(packages: Path) -> Outcome:
    """No file belongs to two packages that disagree about what is in it: which of them it comes from is chance."""
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    for one in importlib.metadata.distributions(path=[str(packages)]):
        name = str(one.name)  # read from its METADATA each time
        for file in one.files or ():
            if file.hash and file.suffix != ".pyc" and str(file) not in NOBODY_IMPORTS:
                owners[str(file)][name] = file.hash.value
    torn = {file: told for file, told in owners.items() if len(set(told.values())) > 1}
    pairs = defaultdict(list)
    for file, told in torn.items():
        pairs[" and ".join(sorted(told))].append(file)
    found = "; ".join(f"{len(files)} in {names}, such as {sorted(files)[0]}" for names, files in pairs.items())
    return "files of two packages that differ", not torn, found or f"none of {len(owners):,}"


def _started(packages: Path, place: Path) -> Iterator[Outcome]:
    try:
        count = make_stub(packages, place)
    except (OSError, subprocess.CalledProcessError) as error:
        yield "stub of the driver", False, f"{error}. It wants gcc and nm"
        return
    yield "stub of the driver", True, f"{count} functions"
    os.environ.pop("VLLM_USE_FLASHINFER_SAMPLER", None)  # what tuneloop does by itself is to be seen
    os.environ["PATH"] = f"{place / 'bin'}:{_path_without_toolkit()}"
    told = _python("import flashinfer; print(flashinfer.__version__)", os.environ | _stubbed(place))
    yield "import flashinfer", told.returncode == 0, _last_line(told)
    for card, name in ON_CARDS.items():
        base = BaseModel(name, write_base(place / "bases", name), "0" * 64, {})
        base = replace(base, config=json.loads((base.path / "config.json").read_text()))
        yield from _on_card(card, base, place)


def _on_card(card: Card, base: BaseModel, place: Path) -> Iterator[Outcome]:
    write_nvidia_smi(place / "bin", card, card)
    plans = {case: _plan(base, place, given) for case, given in CASES.items()}
    question = {
        "name": card.name, "memory_mib": card.memory_mib, "capability": card.capability, "count": 2,
        "launches": {case: plan.command[plan.command.index(SERVER) + 1 :] for case, plan in plans.items()},
    }  # fmt: skip
    answer = place / "answer.json"
    answer.unlink(missing_ok=True)
    where = f"{card.name}, {base.name}"
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.gpu.start_once", answer], input=json.dumps(question), text=True,
            env={**plans["default"].environment, **_stubbed(place)}, capture_output=True, check=False,
            timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        yield where, False, f"nothing after {TIMEOUT_S} s"
        return
    if not answer.exists():
        yield where, False, _last_line(ended)
        return
    for step, (worked, what) in json.loads(answer.read_text()).items():
        yield f"{where}, {step}", worked, what


def _plan(base: BaseModel, place: Path, given: Mapping[str, Any]) -> LaunchPlan:
    settings, device = Settings(data_dir=place / "data", **given), inspect_device()
    _, common = share_accelerator(settings, [base], build_engine_settings(settings), device)
    return plan_launch(base, common, device, place / "socket")


def _stubbed(place: Path) -> dict[str, str]:
    libraries = f"{place}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    return {"LD_LIBRARY_PATH": libraries, "VLLM_CACHE_ROOT": str(place), "TRITON_CACHE_DIR": str(place / "triton")}


def _path_without_toolkit() -> str:
    """PATH without the folders that have nvcc; the variables that name a toolkit are taken away."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        os.environ.pop(name, None)
    folders = os.environ["PATH"].split(":")
    return ":".join(folder for folder in folders if shutil.which("nvcc", path=folder) is None)


def _python(code: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=dict(environment), capture_output=True, text=True, check=False
    )


def _last_line(ended: subprocess.CompletedProcess[str]) -> str:
    return ((ended.stdout if ended.returncode == 0 else ended.stderr).strip().splitlines() or ["nothing"])[-1]


if __name__ == "__main__":
    sys.exit(main())
