"""`python -m serving.vllm_moe_on_cpu …`: vLLM's server, for mixtures of experts with adapters on a processor.

With adapters allowed, vLLM 0.32 computes experts with Triton whatever the machine (`oracle/unquantized.py`,
`select_unquantized_moe_backend`); on a processor there is none, and the first request kills the engine. Adapters that
leave the experts alone need none of it: here the experts are computed as without adapters. It must be started with
`--lora-target-modules` that name no expert. vLLM's worker processes import this module again, and so are changed too.
"""

import dataclasses
import runpy
from typing import Any

from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as method
from vllm.model_executor.layers.fused_moe.oracle import unquantized as oracle

_select = oracle.select_unquantized_moe_backend


def _select_without_adapters(moe_config: Any) -> Any:
    return _select(dataclasses.replace(moe_config, is_lora_enabled=False))


oracle.select_unquantized_moe_backend = _select_without_adapters
method.select_unquantized_moe_backend = _select_without_adapters

if __name__ == "__main__":
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
