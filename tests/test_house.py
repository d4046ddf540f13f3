"""The walls of the house: who may import whom, and what the server's process must stay free of."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OURS = ("adapter_format", "training", "serving", "evaluation", "server", "ui")
WEB = {"fastapi", "gradio"}
HEAVY = {"torch", "transformers", "vllm", "peft", "bitsandbytes", "datasets"}
TORCH_FREE_TRAINING = (
    "training.config",
    "training.data",
    "training.demo.examples",
    "training.demo.knowledge",
    "training.preflight",
    "training.record.health",
    "training.record.progress",
    "training.record.record",
    "training.record.run_summary",
)
MAY_IMPORT_OF_OURS = {
    "adapter_format": set(),
    "training": {"adapter_format"},
    "serving": {"adapter_format"},
    "evaluation": set(),
    "server": {"adapter_format", "serving", "evaluation", "training"},
    "ui": set(),
}
NEVER = {
    "adapter_format": WEB | HEAVY,
    "training": WEB,
    "serving": WEB | {"torch", "vllm"},
    "evaluation": WEB,
    "server": HEAVY | {"gradio"},
    "ui": HEAVY,
}
COMPOSER = Path("server/cli/main.py")
ENGINE_PROGRAM = {
    Path("serving/engines/vllm/on_cpu/server.py"): {"torch", "vllm"},
    Path("serving/engines/vllm/on_cpu/lora.py"): {"torch"},
}
"""Runs as the engine's process, never in ours, and so may import what the rest of `serving` may not."""


def imports() -> Iterator[tuple[Path, str]]:
    """(file, dotted name) of every absolute import in our packages, wherever in the file it stands."""
    for package in OURS:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from ((path.relative_to(REPOSITORY), name) for name in names)


def breaches(found: Iterator[tuple[Path, str]]) -> list[str]:
    """The imports that the table forbids."""
    wrong = []
    for path, name in found:
        package, top = path.parts[0], name.split(".")[0]
        allowed = {package, *MAY_IMPORT_OF_OURS[package], *({"ui"} if path == COMPOSER else set())}
        if top in OURS and top not in allowed:
            wrong.append(f"{path} imports {name}")
        if top in NEVER[package] - ENGINE_PROGRAM.get(path, set()):
            wrong.append(f"{path} imports {name}")
        if (
            package == "server"
            and top == "training"
            and not f"{name}.".startswith(tuple(f"{free}." for free in TORCH_FREE_TRAINING))
        ):
            wrong.append(f"{path} imports {name}, which may import torch")
    return wrong


def is_torch_free(name: str) -> bool:
    """Whether `name` is one of the torch-free parts of `training`, or lies within one."""
    return any(f"{name}.".startswith(f"{part}.") for part in TORCH_FREE_TRAINING)


def test_import_table_holds() -> None:
    assert breaches(imports()) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("training/run/run.py", "serving.adapters.adapter"),
        ("serving/engines/vllm/client.py", "fastapi.FastAPI"),
        ("server/app/http.py", "torch"),
        ("server/app/http.py", "ui.app"),
        ("server/jobs.py", "training.run.run"),
        ("ui/pages/compare/page.py", "server.settings"),
    ],
)
def test_a_breach_is_noticed(path: str, name: str) -> None:
    assert breaches(iter([(Path(path), name)])) != []


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        ("server.app.http", HEAVY | {"gradio"}),
        ("server.cli.main", HEAVY | {"gradio"}),
        # An upload waits for its check, and loading NumPy takes as long as a check of ten lines.
        ("training.inspection.answer, training.data.check", HEAVY | {"numpy"}),
    ],
)
def test_a_program_starts_without_what_is_slow_to_load(modules: str, without: set[str]) -> None:
    listing = f"import sys, {modules}; print(*sorted(set(m.split('.')[0] for m in sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & without


def test_no_module_is_a_drawer_for_anything() -> None:
    drawers = {"utils.py", "helpers.py", "common.py", "core.py", "misc.py"}
    assert [path for package in OURS for path in (REPOSITORY / package).rglob("*.py") if path.name in drawers] == []


def test_lock_files_hold_pins_and_no_host_names() -> None:
    for name in ("cpu.txt", "gpu.txt"):
        lines = (REPOSITORY / "requirements" / name).read_text(encoding="utf-8").split()
        assert lines
        assert [line for line in lines if "==" not in line or "://" in line] == []


def test_the_gpu_lock_has_the_cuda_bindings_of_one_major_version() -> None:
    """cuda-python before 13 has files of cuda-bindings in it, and which of the two a file comes from is chance."""
    lines = (REPOSITORY / "requirements" / "gpu.txt").read_text(encoding="utf-8").split()
    pins = dict(line.split("==") for line in lines)
    # What torch was built for is in the name of the cuDNN that its wheel asks for.
    (cuda,) = [name.removeprefix("nvidia-cudnn-cu") for name in pins if name.startswith("nvidia-cudnn-cu")]
    majors = {name: pins[name].split(".")[0] for name in ("cuda-python", "cuda-bindings", "nvidia-cuda-runtime")}
    assert majors == dict.fromkeys(majors, cuda)
