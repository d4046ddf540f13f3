"""Checks whether an engine can serve an adapter_config.json.

The rules are vLLM's own (its `PEFTHelper` and docs/features/lora); it answers 500 where we say what to change.

PEFT and vLLM match the keys of rank_pattern and alpha_pattern as regular expressions, vLLM in the engine's event loop:
one that backtracks for hours would block every model's answers.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from serving.engines.engine import EngineLimits
from serving.errors import AdapterError, AdapterMisfitError, quote, quote_value

MAX_RANK = 512
"""The largest rank that any engine supports."""
MERGE = "or merge it into its base model and serve the merged model (`tuneloop export merge`)"
"""The remedy for adapters that no engine can serve."""

_UNSUPPORTED = {
    "use_dora": f"the engine can't serve DoRA; train with use_dora=false, {MERGE}",
    "lora_bias": f"the engine can't serve biases; train with lora_bias=false, {MERGE}",
    "modules_to_save": f"the engine only supports low-rank weights; train without modules_to_save, {MERGE}",
    "trainable_token_indices": f"the engine can't serve trained embeddings; train without it, {MERGE}",
    "alora_invocation_tokens": "the engine can't serve activated LoRA; train without it",
    "layer_replication": f"the engine can't serve replicated layers; train without it, {MERGE}",
    "use_qalora": "the engine can't serve QALoRA; train with use_qalora=false",
    "use_bdlora": "the engine can't serve block-diagonal LoRA; train without it",
    "arrow_config": "the engine can't route between adapters; train without it",
    "kasa_config": f"the engine can't serve KaSA; train without it, {MERGE}",
    "monteclora_config": "the engine can't serve MonteCLoRA; train without it",
    "target_parameters": "the engine can't serve LoRA on individual parameters; use target_modules instead",
}
# PiSSA, OLoRA, CorDA and LoftQ change the base's weights when PEFT loads them; these only choose the initial values.
_PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
_OTHER_TASKS = frozenset({"SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "SEQ_2_SEQ_LM"})
EMBEDDINGS = frozenset({"embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out", "word_embeddings"})
"""Names of input and output embeddings across architectures."""
MAX_TARGETS = 4096
"""Maximum number of names in target_modules."""


def check_config(name: str, config: dict[str, Any], limits: EngineLimits | None = None) -> None:
    """Raise AdapterError naming the parameter of adapter `name` that can't be served, and what to use instead.

    limits: of the engine that is to serve it; None skips what a restart of it could change, see `check_fits`.
    """
    if config.get("peft_type") != "LORA":
        raise AdapterError(
            f"{name}: peft_type is {quote_value(config.get('peft_type'))}, but must be 'LORA'. Train a LoRA adapter."
        )
    _check_unsupported(name, config)
    _check_task_and_init(name, config)
    _check_ranks(name, config)
    _check_scaling(name, config)
    _check_targets(name, config)
    if limits is not None:
        check_fits(name, config, limits)


def check_fits(name: str, config: Mapping[str, Any], limits: EngineLimits) -> None:
    """Raise AdapterMisfitError when the valid adapter `name` needs an engine started for a larger rank."""
    for parameter, rank in _ranks(config).items():
        if rank > limits.max_lora_rank:
            raise AdapterMisfitError(
                f"{name}: rank {quote(parameter)!r} is {rank}, but the engine was started for ranks up to "
                f"{limits.max_lora_rank}. Restart it with max_lora_rank {rank} or more, or train with a smaller r."
            )


def largest_rank(config: Mapping[str, Any]) -> int:
    """Return the rank that an engine must support to serve an adapter with this checked config."""
    return int(max(_ranks(config).values()))


def _ranks(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"r": config.get("r"), **(config.get("rank_pattern") or {})}


def _check_unsupported(name: str, config: dict[str, Any]) -> None:
    for parameter, remedy in _UNSUPPORTED.items():
        if config.get(parameter):
            raise AdapterError(f"{name}: {parameter} is {quote_value(config[parameter])}, but {remedy}.")
    if config.get("bias", "none") != "none":
        raise AdapterError(
            f"{name}: bias is {quote_value(config['bias'])}, but must be 'none'. Train with bias='none', {MERGE}."
        )
    for parameter in ("use_rslora", "fan_in_fan_out"):
        if not isinstance(config.get(parameter) or False, bool):
            raise AdapterError(
                f"{name}: {parameter} is {quote_value(config[parameter])}, but must be true or false. "
                "Save the adapter again."
            )


def _check_task_and_init(name: str, config: dict[str, Any]) -> None:
    task, init = config.get("task_type"), config.get("init_lora_weights", True)
    if isinstance(task, str) and task in _OTHER_TASKS:
        raise AdapterError(
            f"{name}: task_type is {task!r}, but only text generation is supported. Train with task_type='CAUSAL_LM'."
        )
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        raise AdapterError(
            f"{name}: init_lora_weights is {quote_value(init)}, which also changes the base model's weights. "
            "Convert it to a plain LoRA with PEFT's path_initial_model_for_weight_conversion."
        )
    if not isinstance(init, str | bool | None):
        raise AdapterError(
            f"{name}: init_lora_weights is {quote_value(init)}, but must be true, false or a name. "
            "Save the adapter again."
        )


def _check_ranks(name: str, config: dict[str, Any]) -> None:
    check_pattern(name, config, "rank_pattern", "ranks")
    for parameter, rank in _ranks(config).items():
        if type(rank) is not int or rank < 1:
            raise AdapterError(
                f"{name}: rank {quote(parameter)!r} is {quote_value(rank)}, but must be a whole number, 1 or "
                "more. Save the adapter again."
            )
        if rank > MAX_RANK:
            raise AdapterError(
                f"{name}: rank {quote(parameter)!r} is {quote_value(rank)}, but no engine supports ranks above "
                f"{MAX_RANK}. Train with a smaller r, {MERGE}."
            )


def _check_scaling(name: str, config: dict[str, Any]) -> None:
    check_pattern(name, config, "alpha_pattern", "numbers")
    for parameter, alpha in {"lora_alpha": config.get("lora_alpha"), **(config.get("alpha_pattern") or {})}.items():
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not _is_finite(alpha):
            raise AdapterError(
                f"{name}: {quote(parameter)} is {quote_value(alpha)}, but must be a finite number. "
                "Save the adapter again."
            )
    if config["lora_alpha"] == 0:
        raise AdapterError(f"{name}: lora_alpha is 0, so the adapter has no effect. Train it with lora_alpha above 0.")


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer too large for a float
        return False


def _check_targets(name: str, config: dict[str, Any]) -> None:
    targets = config.get("target_modules")
    listed = [targets] if isinstance(targets, str) else targets
    if not isinstance(listed, list) or not listed or not all(isinstance(target, str) for target in listed):
        raise AdapterError(
            f"{name}: target_modules is {quote_value(targets)}, but must be module names or a pattern. Save the "
            "adapter again."
        )
    if len(listed) > MAX_TARGETS:
        raise AdapterError(
            f"{name}: target_modules has {len(listed)} names, but at most {MAX_TARGETS} are allowed. Use the "
            "last part of module names."
        )
    for target in listed:
        if target.rsplit(".", 1)[-1] in EMBEDDINGS:
            raise AdapterError(
                f"{name}: target_modules has {quote(target)!r}, an embedding, which can't be adapted. Train without "
                f"it, {MERGE}."
            )


MAX_PATTERNS = 240
"""Maximum entries of rank_pattern and of alpha_pattern. vLLM matches each module against each key with a library that
caches 500 compiled patterns: 480 keys for 480 modules took 0.8 s, 560 for 560 took 9 s, while no model answers."""
MAX_WILD_PATTERNS = 16
"""Maximum of those that are more than a module's name or the end of one."""
_PLAIN_KEY = re.compile(r"\^?(?:[\w.-]|\\\.)+\$?", re.ASCII)


def check_pattern(name: str, config: Mapping[str, Any], parameter: str, kind: str) -> None:
    """Raise AdapterError unless `parameter` of adapter `name` maps modules to `kind`, a noun in the plural."""
    pattern = config.get(parameter) or {}
    if not isinstance(pattern, dict):
        raise AdapterError(
            f"{name}: {parameter} is {quote_value(pattern)}, but must map module names to {kind}. Save the adapter "
            "again."
        )
    if len(pattern) > MAX_PATTERNS:
        raise AdapterError(
            f"{name}: {parameter} has {len(pattern)} entries, but at most {MAX_PATTERNS} are allowed. Use the "
            "last part of module names."
        )
    wild = [key for key in pattern if not _PLAIN_KEY.fullmatch(key)]
    if len(wild) > MAX_WILD_PATTERNS or not all(map(_is_fast_pattern, wild)):
        raise AdapterError(
            f"{name}: {parameter} has the key {quote_value(wild[0])}, but keys must be module names, the last part "
            f"of one, or at most {MAX_WILD_PATTERNS} simple patterns. Write out the module names."
        )


def _is_fast_pattern(key: str) -> bool:
    """Return whether a key that is no plain name can be matched without much backtracking."""
    pattern = key.replace("(?:", "(")
    repeated = len(re.findall(r"[*+?{]", pattern))
    if len(key) > 200 or repeated > 2 or pattern.count("(") > 2 or "(?" in pattern or re.search(r"\)[*+?{]", pattern):
        return False
    try:
        re.compile(key)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def rank_of(config: Mapping[str, Any], module: str) -> int:
    """Return the rank that a checked config gives to a module, by PEFT's rule: the first key that matches its end."""
    for key, rank in (config.get("rank_pattern") or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return int(rank)
    return int(config["r"])
