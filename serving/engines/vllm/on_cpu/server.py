"""`python -m serving.engines.vllm.on_cpu.server …`: vLLM's server on a CPU, with six bugs of vLLM 0.32 fixed.

1. A request for the base, in one batch with a request for an adapter, is answered with the adapter in the last slot.
   The CPU operations look up a token's adapter by an index that is -1 where there is none, and to torch -1 means the
   last (https://github.com/vllm-project/vllm/pull/48421). Until that slot is filled, nothing shows.
2. Those operations copy an adapter's matrices once for every token, layer by layer and slice by slice. `lora`
   replaces them, and their caller for linear layers.
3. A request for the log-probabilities of its prompt (`prompt_logprobs`) kills the engine when another is in the batch:
   logits of all its tokens are to be changed by the adapters of the batch's requests. No adapter that we load targets
   the output layer or the embeddings, where the same work has no effect: there is nothing to change.
4. With adapters allowed, experts are computed with Triton whatever the machine (`oracle/unquantized.py`,
   `select_unquantized_moe_backend`); a CPU has none, and the first request kills the engine. Adapters that leave the
   experts alone don't need it: here the experts are computed as without adapters. The server must be started with
   `--lora-target-modules` that name no expert.
5. A request with a seed kills the engine when its prompt is read in more than one step. `seeds` has the reason
   and the fix, and keeps seeds distinct that torch treats as equal.
6. On a CPU with AMX a short prompt kills an engine that hasn't processed a longer one: Linux lets a process use AMX's
   tiles only on request (https://docs.kernel.org/arch/x86/xstate.html). vLLM's attention doesn't request them, but
   oneDNN does, for a matrix product that is large enough. Here each process requests them as it starts, and does
   without AMX if Linux refuses.

It also starts in less than half of the CPU time (11 to 13 s instead of 26 to 31) and with 1.3 GiB instead of 2.0,
because it is two processes that load vLLM once, not three that each load it:
- one worker computes in the process of the engine core, as on a GPU. On CPUs vLLM starts a process for it anyway, since
  OpenMP reads its cores from the environment when a process begins. Here system calls set them.
- that process is a fork of the HTTP server, as on a GPU.
- the capabilities of an architecture are determined in the HTTP server itself. vLLM starts a process for that, the
  first time on a machine, so that CUDA isn't initialised too early.
Several workers (`--tensor-parallel-size`) are processes as usual; they import this module again, and are patched, too.
"""

import dataclasses
import os
import runpy
from collections.abc import Callable
from typing import Any

import torch
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
from vllm.lora.layers.column_parallel_linear import MergedColumnParallelLinearWithLoRA
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu
from vllm.model_executor.layers.fused_moe import unquantized_fused_moe_method as method
from vllm.model_executor.layers.fused_moe.oracle import unquantized as oracle
from vllm.model_executor.models import registry
from vllm.platforms.cpu import CpuPlatform
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.executor.uniproc_executor import UniProcExecutor
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

from serving.engines.vllm.on_cpu import lora, seeds

OPERATIONS = {
    "bgmv_shrink": lora.shrink,
    "bgmv_expand": lora.expand,
    "bgmv_expand_slice": lora.expand_slice,
}


def _update_metadata(wrapper: Any, mapping: Any, slot_ids: list[int | None], *more: Any, **named: Any) -> None:
    """Replaces `update_metadata`: also makes the step's plan."""
    _update(wrapper, mapping, slot_ids, *more, **named)
    slots = {lora_id: slot for slot, lora_id in enumerate(slot_ids) if lora_id is not None}
    wrapper.plan = lora.Plan([slots[row] if row > 0 else -1 for row in mapping.index_mapping], len(slot_ids))


def _add_lora_linear(wrapper: Any, y: Any, x: Any, a: Any, b: Any, scale: float, *_: Any, **__: Any) -> None:
    """Replaces `add_lora_linear`."""
    lora.add_products(y, x, a, b, wrapper.plan, scale)


def _wrap_create_lora_weights(create: Callable[..., None]) -> Callable[..., None]:
    """Wrap `create_lora_weights`: the layer's matrices are laid out as the products need them."""

    def create_lora_weights(layer: Any, *arguments: Any, **named: Any) -> None:
        create(layer, *arguments, **named)
        layer.lora_a_stacked = lora.StackedA.zeros_like(layer.lora_a_stacked)
        layer.lora_b_stacked = lora.StackedB.zeros_like(layer.lora_b_stacked)

    return create_lora_weights


def _wrap_set_lora(set_lora: Callable[..., None]) -> Callable[..., None]:
    """Wrap `set_lora`: overflows of B times the adapter's scaling are replaced by finite numbers."""

    def finite_set_lora(layer: Any, index: int, *arguments: Any, **named: Any) -> None:
        set_lora(layer, index, *arguments, **named)
        lora.make_finite(layer.lora_b_stacked, index)

    return finite_set_lora


def _do_nothing(*_arguments: Any, **_named: Any) -> None:
    """Replaces `add_lora_logits` and `add_lora_embedding`."""


def _select_without_adapters(moe_config: Any) -> Any:
    return _select(dataclasses.replace(moe_config, is_lora_enabled=False))


def _wrap_config_check(check_and_update_config: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap the platform's final check of a configuration: a single worker stays in the engine core's process."""

    def update_config(config: Any) -> None:
        has_one_worker = config.parallel_config.distributed_executor_backend == "uni"
        check_and_update_config(config)
        if has_one_worker:
            config.parallel_config.distributed_executor_backend = "uni"
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    return update_config


def _wrap_init_executor(start_worker: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap the worker's start: it runs on the cores that vLLM would give to a worker's process."""

    def start_on_cores(executor: Any) -> None:
        for cores in OMPProcessManager(executor.vllm_config).cpu_lists:
            os.sched_setaffinity(0, cores)
            torch.set_num_threads(len(cores))
        start_worker(executor)

    return start_on_cores


def _run_in_this_process(question: Callable[[], Any]) -> Any:
    """Replaces `_run_in_subprocess`."""
    return question()


def may_use_tiles() -> bool:
    """Return whether the CPU has AMX and Linux lets this process use its tiles, which this call requests."""
    return bool(torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx())


if not may_use_tiles():
    torch.cpu._is_amx_tile_supported = lambda: False
for _name, _operation in OPERATIONS.items():
    setattr(lora_ops, _name, _operation)  # the operations for prefill look them up there
    setattr(punica_cpu, _name, _operation)
punica_cpu.PunicaWrapperCPU.add_lora_logits = _do_nothing
punica_cpu.PunicaWrapperCPU.add_lora_embedding = _do_nothing
punica_cpu.PunicaWrapperCPU.plan = lora.Plan((), 0)  # until a batch has had an adapter
_update = punica_cpu.PunicaWrapperCPU.update_metadata
punica_cpu.PunicaWrapperCPU.update_metadata = _update_metadata
punica_cpu.PunicaWrapperCPU.add_lora_linear = _add_lora_linear
for _layer in (BaseLinearLayerWithLoRA, MergedColumnParallelLinearWithLoRA):
    _layer.create_lora_weights = _wrap_create_lora_weights(_layer.create_lora_weights)
    _layer.set_lora = _wrap_set_lora(_layer.set_lora)
registry._run_in_subprocess = _run_in_this_process
_select = oracle.select_unquantized_moe_backend
oracle.select_unquantized_moe_backend = _select_without_adapters
method.select_unquantized_moe_backend = _select_without_adapters
CPUModelRunner.sample_tokens = seeds.keep_generators(CPUModelRunner.sample_tokens)
CpuPlatform.check_and_update_config = staticmethod(_wrap_config_check(CpuPlatform.check_and_update_config))
UniProcExecutor._init_executor = _wrap_init_executor(UniProcExecutor._init_executor)
CPUModelRunner._update_states = seeds.distinguish_seeds(CPUModelRunner._update_states)

if __name__ == "__main__":
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
