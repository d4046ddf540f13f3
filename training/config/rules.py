"""The rules of each setting of a fine-tuning run, and the wording of violations."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal


def looks_like_path(base_model: str) -> bool:
    """Return whether `base_model` can't be a hub id (`name` or `owner/name`) and so must be a folder."""
    return base_model.startswith((".", "/", "~", "\\")) or base_model.count("/") > 1 or base_model.endswith("/")


def _at_least(low: float) -> Callable[[Any], str | None]:
    return lambda value: None if value >= low else f"is {value}, but must be {low} or more"


def _above_zero(value: Any) -> str | None:
    return None if 0 < value < float("inf") else f"is {value}, but must be a finite number above 0"


def _between(low: float, high: float) -> Callable[[Any], str | None]:
    return lambda value: None if low <= value <= high else f"is {value}, but must be from {low} to {high}"


def _allow_auto(rule: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    return lambda value: None if value == "auto" else rule(value)


def _below(low: float, high: float) -> Callable[[Any], str | None]:
    return lambda value: (
        None if low <= value < high else f"is {value}, but must be from {low} up to, not including, {high}"
    )


def _each_item(rule: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    """Every item must satisfy `rule`, and there must be at least one."""

    def check(value: Any) -> str | None:
        items = list(value.values()) if isinstance(value, Mapping) else list(value)
        return next(filter(None, map(rule, items)), None) if items else "is empty; leave it out instead"

    return check


def _not_blank(value: Any) -> str | None:
    return None if str(value).strip() else "is empty"


def _modules(value: Any) -> str | None:
    names = [value] if isinstance(value, str) else value
    if not names or not all(names):
        return "is empty; use `all-linear` or names such as [q_proj, v_proj]"
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            return f"is {value!r}, which is neither a name nor a regular expression: {error}"
    return None


def _folder_or_hub_id(value: Any) -> str | None:
    if not value.strip():
        return "is empty; use a local folder or a hub id such as Qwen/Qwen3-0.6B"
    if looks_like_path(value) and not Path(value).is_dir():
        return f"is {value!r}, but there is no such folder; use an existing folder, or a hub id such as Qwen/Qwen3-0.6B"
    return None


_RULES: Mapping[str, Callable[[Any], str | None]] = {
    "base_model": _folder_or_hub_id,
    "training_file": _not_blank,
    "output_dir": _not_blank,
    "from_adapter": _not_blank,
    "base_model_name": _not_blank,
    "fine_tuned_model": _not_blank,
    "validation_file": _not_blank,
    "validation_fraction": _between(0, 0.5),
    "holdout_fraction": _between(0, 0.5),
    "mix_file": _not_blank,
    "mix_ratio": lambda value: None if 0 < value <= 10 else f"is {value}, but must be above 0 and at most 10",
    "n_epochs": _allow_auto(_between(1, 1000)),
    "max_steps": _at_least(1),
    "batch_size": _allow_auto(_between(1, 4096)),
    "gradient_accumulation_steps": _between(1, 4096),
    "learning_rate": _allow_auto(_above_zero),
    "warmup_ratio": _between(0, 1),
    "adam_beta1": _below(0, 1),
    "adam_beta2": _below(0, 1),
    "adam_epsilon": _above_zero,
    "weight_decay": _between(0, 10),
    "max_grad_norm": _above_zero,
    "neftune_noise_alpha": _above_zero,
    "early_stopping_patience": _at_least(1),
    "early_stopping_threshold": _between(0, 100),
    "r": _between(1, 512),
    "lora_alpha": _between(1, 4096),
    "lora_dropout": _between(0, 0.95),
    "target_modules": _modules,
    "exclude_modules": _modules,
    "modules_to_save": _modules,
    "layers_to_transform": _each_item(_between(0, 10_000)),
    "rank_pattern": _each_item(_between(1, 512)),
    "alpha_pattern": _each_item(_between(1, 4096)),
    "num_virtual_tokens": _between(1, 1000),
    "encoder_hidden_size": _between(1, 65536),
    "max_memory_gb": _above_zero,
    "max_length": _between(8, 1_000_000),
    "beta": _above_zero,
    "label_smoothing": _below(0, 0.5),
    "desirable_weight": _above_zero,
    "undesirable_weight": _above_zero,
    "seed": _between(0, 2**32 - 1),
    "logging_steps": _at_least(1),
    "eval_steps": _allow_auto(_at_least(1)),
    "save_steps": _allow_auto(_at_least(1)),
    "save_total_limit": _between(1, 1000),
    "wandb_project": _not_blank,
}


def find_fault(name: str, value: Any, expected: Any) -> str | None:
    """Return what is wrong with `value` for the setting `name`, whose type is `expected`; None if nothing is."""
    if not _fits(value, expected):
        return f"is {value!r}, but must be {_describe_type(expected)}"
    if value is None or name not in _RULES:
        return None
    return _RULES[name](value)


def _fits(value: Any, expected: Any) -> bool:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in arguments)
    if origin is Literal:
        return value in arguments and isinstance(value, str)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, arguments[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, dict) and all(
            _fits(name, arguments[0]) and _fits(item, arguments[1]) for name, item in value.items()
        )
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


def _describe_type(expected: Any) -> str:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe_type(choice) for choice in arguments)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin is tuple:
        return "a list of names" if arguments[0] is str else "a list of whole numbers"
    if origin is Mapping:
        return "names with a whole number each"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "null"}
    return words[expected]


def unknown_setting(name: str, known: Iterable[str]) -> str:
    """Return the message for the unknown setting `name`."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return "is not a setting" + (
        f"; did you mean `{nearest[0]}`?" if nearest else "; `docs/training.md` lists them all"
    )
