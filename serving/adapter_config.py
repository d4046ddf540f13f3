"""Which adapter_config.json an engine can serve. It refuses to know the tensors beside it.

The rules are vLLM's own (its `PEFTHelper` and docs/features/lora); it answers 500 where we say what to change.
"""

import math
from typing import Any

from serving.engine import EngineLimits
from serving.errors import AdapterError

_MUST_BE_OFF = {
    "use_dora": "the engine can't serve DoRA; train with use_dora=false",
    "lora_bias": "the engine can't serve biases; train with lora_bias=false",
    "modules_to_save": "the engine serves low-rank changes only; train without modules_to_save",
    "trainable_token_indices": "the engine can't serve trained embeddings; train without it",
    "alora_invocation_tokens": "the engine can't serve activated LoRA; train without it",
    "layer_replication": "the engine can't serve replicated layers; train without it",
    "use_qalora": "the engine can't serve QALoRA; train with use_qalora=false",
    "use_bdlora": "the engine can't serve block-diagonal LoRA; train without it",
    "target_parameters": "the engine can't serve LoRA on bare parameters; name modules in target_modules instead",
}
# PiSSA, OLoRA, CorDA and LoftQ change the base's weights when PEFT loads them; these only choose the first values.
_PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
EMBEDDINGS = frozenset({"embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out", "word_embeddings"})
"""Names of input and output embeddings across architectures."""


def check_config(name: str, config: dict[str, Any], limits: EngineLimits) -> None:
    """Raises AdapterError naming the parameter of adapter `name` that can't be served, and what to use instead."""
    if config.get("peft_type") != "LORA":
        raise AdapterError(
            f"{name}: peft_type is {config.get('peft_type')!r}, but must be 'LORA'. Train a LoRA adapter."
        )
    for parameter, remedy in _MUST_BE_OFF.items():
        if config.get(parameter):
            raise AdapterError(f"{name}: {parameter} is {config[parameter]!r}, but {remedy}.")
    if config.get("bias", "none") != "none":
        raise AdapterError(f"{name}: bias is {config['bias']!r}, but must be 'none'. Train with bias='none'.")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        raise AdapterError(
            f"{name}: init_lora_weights is {init!r}, which changes the base's weights too. "
            "Convert it to a plain LoRA with PEFT's path_initial_model_for_weight_conversion."
        )
    _check_ranks(name, config, limits)
    _check_scaling(name, config)
    _check_targets(name, config)


def allowed_ranks(config: dict[str, Any]) -> set[int]:
    """The ranks that a module of the adapter may have: `r`, and those in `rank_pattern`."""
    return {config["r"], *(config.get("rank_pattern") or {}).values()}


def _check_ranks(name: str, config: dict[str, Any], limits: EngineLimits) -> None:
    pattern = config.get("rank_pattern") or {}
    if not isinstance(pattern, dict):
        raise AdapterError(f"{name}: rank_pattern is {pattern!r}, but must map module names to ranks.")
    for parameter, rank in {"r": config.get("r"), **pattern}.items():
        if type(rank) is not int or rank < 1:
            raise AdapterError(f"{name}: rank {parameter!r} is {rank!r}, but must be a whole number from 1 on.")
        if rank > limits.max_lora_rank:
            raise AdapterError(
                f"{name}: rank {parameter!r} is {rank}, but the engine was started for ranks up to "
                f"{limits.max_lora_rank}. Train with a smaller r, or start with a larger max_lora_rank."
            )


def _check_scaling(name: str, config: dict[str, Any]) -> None:
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict):
        raise AdapterError(f"{name}: alpha_pattern is {alphas!r}, but must map module names to numbers.")
    for parameter, alpha in {"lora_alpha": config.get("lora_alpha"), **alphas}.items():
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise AdapterError(
                f"{name}: {parameter} is {alpha!r}, but must be a finite number. Save the adapter again."
            )


def _check_targets(name: str, config: dict[str, Any]) -> None:
    targets = config.get("target_modules")
    listed = [targets] if isinstance(targets, str) else targets
    if not isinstance(listed, list) or not listed or not all(isinstance(target, str) for target in listed):
        raise AdapterError(f"{name}: target_modules is {targets!r}, but must be names of modules, or a pattern.")
    for target in listed:
        if target.rsplit(".", 1)[-1] in EMBEDDINGS:
            raise AdapterError(
                f"{name}: target_modules holds {target!r}, an embedding, which can't be adapted. Train without it."
            )
