"""`python -m tests.gpu.start_once ANSWER < QUESTION`: as far as vLLM starts on a GPU that isn't here.

It parses what tuneloop would start vLLM with, makes its configuration of it, chooses how attention is computed, and
builds the sampler and samples. The driver is a stub, NVML is told what to say, and no CUDA toolkit is to be seen.

QUESTION: {"name", "memory_mib", "capability", "count", "launches": {case: arguments}}. ANSWER: {step: [worked, what]}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MIB = 2**20
TOOLKIT = "/usr/local/cuda"


def main() -> None:
    question = json.load(sys.stdin)
    hide_toolkit()
    pretend(question)
    told = {f"arguments, {case}": tried(configured, given) for case, given in question["launches"].items()}
    told["sampler"] = tried(sampled)
    Path(sys.argv[1]).write_text(json.dumps(told))


def hide_toolkit() -> None:
    """FlashInfer and Triton look there, too, where neither PATH nor the environment names a toolkit."""
    exists = os.path.exists
    os.path.exists = lambda path: not str(path).startswith(TOOLKIT) and exists(path)


def pretend(question: dict[str, Any]) -> None:
    """Has NVML and torch, as vLLM and FlashInfer ask them, name the cards."""
    import torch
    import vllm.third_party.pynvml as nvml

    total = question["memory_mib"] * MIB
    answers = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": question["count"],
        "nvmlDeviceGetHandleByIndex": 0,
        "nvmlDeviceGetHandleByUUID": 0,
        "nvmlDeviceGetIndex": 0,
        "nvmlDeviceGetCudaComputeCapability": tuple(question["capability"]),
        "nvmlDeviceGetName": question["name"],
        "nvmlDeviceGetUUID": "GPU-0",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=total, free=total - 500 * MIB, used=500 * MIB),
    }
    for name, answer in answers.items():
        setattr(nvml, name, lambda *_arguments, answer=answer: answer)
    torch.cuda._device_count_nvml = torch.cuda.device_count = lambda: question["count"]
    torch.cuda.get_device_capability = lambda *_arguments: tuple(question["capability"])


def tried(step: Callable[..., str], *arguments: Any) -> tuple[bool, str]:
    """(whether it worked, what came of it)"""
    try:
        return True, step(*arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001 — whatever ends an engine is told
        return False, f"{type(error).__name__}: {str(error)[-600:]}"


def configured(arguments: list[str]) -> str:
    """The engine that vLLM's own parser and configuration make of `arguments`."""
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.attention.selector import get_attn_backend

    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
    validate_parsed_serve_args(parsed)
    engine = AsyncEngineArgs.from_cli_args(parsed).create_engine_config()
    model = engine.model_config
    with set_current_vllm_config(engine):
        attention = get_attn_backend(model.get_head_size(), model.dtype, engine.cache_config.cache_dtype).get_name()
    dtype = str(model.dtype).removeprefix("torch.")
    return f"{dtype}, {model.max_model_len} tokens, {engine.scheduler_config.max_num_seqs} requests, {attention}"


def sampled() -> str:
    """The sampler that an engine builds as it starts, once it has sampled. Triton's kernels want a GPU: left out."""
    import torch
    from vllm.platforms import current_platform
    from vllm.v1.sample.ops import topk_topp_sampler

    type(current_platform).num_compute_units = classmethod(lambda *_arguments: 128)
    torch.accelerator.current_device_index = lambda: 0
    topk_topp_sampler.HAS_TRITON = False
    sampler = topk_topp_sampler.TopKTopPSampler()
    sampler.forward(torch.randn(4, 1000), {}, torch.full((4,), 999), torch.full((4,), 0.9))
    return str(sampler.forward.__name__)


if __name__ == "__main__":
    main()
