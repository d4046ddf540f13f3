"""`python -m serving.vllm_on_cpu …`: vLLM's server on a processor, with two faults of vLLM 0.32 mended.

1. A request for the base, in one batch with a request for an adapter, is answered with the adapter in the last slot.
   The operations for processors take the adapter of a token by an index that is -1 where there is none, and to torch
   -1 means the last (https://github.com/vllm-project/vllm/pull/48421). Until that slot is filled, nothing shows.
2. With adapters allowed, experts are computed with Triton whatever the machine (`oracle/unquantized.py`,
   `select_unquantized_moe_backend`); on a processor there is none, and the first request kills the engine. Adapters
   that leave the experts alone need none of it: here the experts are computed as without adapters. It must be started
   with `--lora-target-modules` that name no expert.

vLLM's worker processes import this module again, and so are changed too.
"""

import dataclasses
import runpy
from collections.abc import Callable
from typing import Any

from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu
from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as method
from vllm.model_executor.layers.fused_moe.oracle import unquantized as oracle

OPERATIONS = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")


def sparing_the_base(operation: Callable[..., None]) -> Callable[..., None]:
    """`operation`, which adds the product of each row and its adapter; nothing for a row without an adapter."""

    def spared(inputs: Any, weights: Any, output: Any, indices: Any, *rest: Any, **named: Any) -> None:
        # inputs: float [rows, features]; indices: int64 [rows], -1 for a row of the base
        without = (indices < 0).unsqueeze(1)
        operation(inputs.masked_fill(without, 0), weights, output, indices, *rest, **named)

    return spared


def _select_without_adapters(moe_config: Any) -> Any:
    return _select(dataclasses.replace(moe_config, is_lora_enabled=False))


for _name in OPERATIONS:
    _spared = sparing_the_base(getattr(lora_ops, _name))
    setattr(lora_ops, _name, _spared)  # the operations for prefill look them up there
    setattr(punica_cpu, _name, _spared)
_select = oracle.select_unquantized_moe_backend
oracle.select_unquantized_moe_backend = _select_without_adapters
method.select_unquantized_moe_backend = _select_without_adapters

if __name__ == "__main__":
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
