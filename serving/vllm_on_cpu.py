"""`python -m serving.vllm_on_cpu …`: vLLM's server on a processor, with four faults of vLLM 0.32 mended.

1. A request for the base, in one batch with a request for an adapter, is answered with the adapter in the last slot.
   The operations for processors take the adapter of a token by an index that is -1 where there is none, and to torch
   -1 means the last (https://github.com/vllm-project/vllm/pull/48421). Until that slot is filled, nothing shows.
2. Those operations copy an adapter's matrices once for every token. `lora_on_cpu` takes their place.
3. A request for the log-probabilities of its prompt (`prompt_logprobs`) kills the engine when another is in the batch:
   logits of all its tokens are to be changed by the adapters of the batch's requests. No adapter that we load is on the
   output layer, so there is nothing to change.
4. With adapters allowed, experts are computed with Triton whatever the machine (`oracle/unquantized.py`,
   `select_unquantized_moe_backend`); on a processor there is none, and the first request kills the engine. Adapters
   that leave the experts alone need none of it: here the experts are computed as without adapters. It must be started
   with `--lora-target-modules` that name no expert.

vLLM's worker processes import this module again, and so are changed too.
"""

import dataclasses
import runpy
from typing import Any

from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu
from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as method
from vllm.model_executor.layers.fused_moe.oracle import unquantized as oracle

from serving import lora_on_cpu

OPERATIONS = {
    "bgmv_shrink": lora_on_cpu.shrink,
    "bgmv_expand": lora_on_cpu.expand,
    "bgmv_expand_slice": lora_on_cpu.expand_slice,
}


def _leave_logits(*_arguments: Any, **_named: Any) -> None:
    """In place of `add_lora_logits`."""


def _select_without_adapters(moe_config: Any) -> Any:
    return _select(dataclasses.replace(moe_config, is_lora_enabled=False))


for _name, _operation in OPERATIONS.items():
    setattr(lora_ops, _name, _operation)  # the operations for prefill look them up there
    setattr(punica_cpu, _name, _operation)
punica_cpu.PunicaWrapperCPU.add_lora_logits = _leave_logits
_select = oracle.select_unquantized_moe_backend
oracle.select_unquantized_moe_backend = _select_without_adapters
method.select_unquantized_moe_backend = _select_without_adapters

if __name__ == "__main__":
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
