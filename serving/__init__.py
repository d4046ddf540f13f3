"""`serving` turns a model name into tokens: it runs vLLM, and loads adapters as they are requested.

`server`, by contrast, speaks HTTP to clients, and uses this package.

    base = resolve_base_model("models/tuneloop-demo")
    engine = VLLMProcess(base, VLLMSettings(state_dir=here / "engine", log_path=here / "logs" / "engine.log"))
    await engine.start(print)
    registry = Registry(here / "adapters", [pool_of(engine)])
    async with registry.lease("ft:tuneloop-demo:tuneloop:capitals:8f3k2m1q") as lease:
        async with lease.engine.request("POST", "/v1/chat/completions", body=body_naming(lease.name)) as response:
            async for chunk in response.chunks(): ...
"""

from serving.adapters.adapter import Adapter, read_adapter, scan_adapters
from serving.adapters.check import check_adapter
from serving.adapters.importing import import_adapter
from serving.base_model import BaseModel, resolve_base_model
from serving.engines.engine import AdapterHost, Engine, EngineLimits, EngineResponse, EngineState, OnProgress
from serving.engines.vllm.arguments import VLLMSettings
from serving.engines.vllm.supervisor import VLLMProcess
from serving.errors import (
    AdapterError,
    AdapterInUseError,
    AdapterMisfitError,
    AdapterUncheckedError,
    BaseModelError,
    EngineError,
    EngineStartError,
    EngineUnavailableError,
    ModelNotFoundError,
    ParityError,
    ServingError,
)
from serving.machine.device import GPU, Device, find_gpu_trouble, inspect_device, read_torch_cuda
from serving.registry.loader import RegistryObserver
from serving.registry.pool import Pool, Replica, pool_of
from serving.registry.registry import Lease, Registry

__all__ = [
    "GPU",
    "Adapter",
    "AdapterError",
    "AdapterHost",
    "AdapterInUseError",
    "AdapterMisfitError",
    "AdapterUncheckedError",
    "BaseModel",
    "BaseModelError",
    "Device",
    "Engine",
    "EngineError",
    "EngineLimits",
    "EngineResponse",
    "EngineStartError",
    "EngineState",
    "EngineUnavailableError",
    "Lease",
    "ModelNotFoundError",
    "OnProgress",
    "ParityError",
    "Pool",
    "Registry",
    "RegistryObserver",
    "Replica",
    "ServingError",
    "VLLMProcess",
    "VLLMSettings",
    "check_adapter",
    "find_gpu_trouble",
    "import_adapter",
    "inspect_device",
    "pool_of",
    "read_adapter",
    "read_torch_cuda",
    "resolve_base_model",
    "scan_adapters",
]
