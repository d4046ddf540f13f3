"""What the tests of `serving` share: a base model of a few kB, and one real engine for all tests that only use it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from serving import BaseModel, EngineLimits, Registry, VLLMProcess, VLLMSettings, pool_of, resolve_base_model
from tests.serving.adapters.adapters_on_disk import write_base

T = TypeVar("T")
LIMITS = EngineLimits(max_lora_rank=8, max_loras=2, max_cpu_loras=4, max_model_len=128)


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    """A base model of a few kB."""
    return write_base(tmp_path / "tiny-base")


@dataclass
class LiveEngine:
    """A real vLLM, the event loop that it lives in, and a registry before it."""

    engine: VLLMProcess
    registry: Registry
    adapters_dir: Path
    log_path: Path
    stages: list[str]
    """What its start reported."""
    runner: asyncio.Runner = field(repr=False)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, from the engine's own loop."""
        return self.runner.run(coroutine)


@pytest.fixture(scope="session")
def live(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    """The real engine on the embedded base. Leave it running; what kills it comes last in test_vllm_process."""
    data_dir = tmp_path_factory.mktemp("serving")
    base = resolve_base_model(str(demo_model))
    settings = VLLMSettings(
        data_dir / "engine", data_dir / "engine.log", max_lora_rank=16, max_loras=2, max_cpu_loras=4, max_model_len=512
    )
    engine = VLLMProcess(base, settings)
    stages: list[str] = []
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as machine:
        # A machine without a C++ compiler, and nothing that was compiled before.
        machine.setenv("CXX", "/no/compiler")
        machine.setenv("TORCHINDUCTOR_CACHE_DIR", str(data_dir / "compiled"))
        try:
            runner.run(engine.start(lambda stage, elapsed_s, expected_s: stages.append(stage)))
            registry = Registry(data_dir / "adapters", [pool_of(engine)])
            yield LiveEngine(engine, registry, data_dir / "adapters", settings.log_path, stages, runner)
        finally:
            runner.run(engine.stop())
