"""Names of a model's layers, and checks of a configuration's layer settings.

PEFT ignores a name that matches nothing as long as another one does, and would silently train less than requested;
here every name must match.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit

from training.config.config import TrainingConfig

ROUTERS = ("gate", "router", "shared_expert_gate")
"""Names of the small layers that route tokens to experts. vLLM can't load an adapter on them."""

FUSED_IN_VLLM: Mapping[str, tuple[str, ...]] = {"glm4": ("gate_up_proj",)}
"""By model type: layers that vLLM 0.32 knows only by the names of their halves, so that it can't load an adapter on
them."""


class BaseModelError(Exception):
    """The base model can't be found, read or adapted."""

    def __init__(self, message: str, param: str = "base_model") -> None:
        self.param = param
        super().__init__(message)


def has_fused_experts(model: Any) -> bool:
    """Return whether `model` stores the weights of its experts as tensors [experts, out, in].

    transformers 5 does so for Mixtral and most other mixtures of experts. bitsandbytes quantises linear layers only, so
    these tensors stay in the compute dtype. `all-linear` doesn't cover them either; what it covers, vLLM can load.
    """
    return any(parameter.ndim == 3 for name, parameter in model.named_parameters() if "experts" in name)


def find_linear_layers(model: Any) -> list[str]:
    """Return full names of the layers that `all-linear` covers: neither the output layer nor what vLLM can't load."""
    output = model.get_output_embeddings()
    left_out = {*ROUTERS, *FUSED_IN_VLLM.get(model.config.model_type, ())}
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not output and name.rsplit(".", 1)[-1] not in left_out
    ]


def check_layers(model: Any, config: TrainingConfig, targets: str | Collection[str]) -> None:
    """Raise `BaseModelError` if a setting of a LoRA adapter on `targets` doesn't fit the layers of `model`."""
    _check_patterns(config, targets)
    layers = [name for name, _ in model.named_modules()]
    _check_names(config, "target_modules", [] if isinstance(targets, str) else targets, layers)
    targeted = [name for name in layers if _matches_name(name, targets)]
    _check_names(config, "exclude_modules", config.exclude_modules or (), targeted)
    _check_names(config, "rank_pattern", config.rank_pattern or (), targeted, pattern=True)
    _check_names(config, "alpha_pattern", config.alpha_pattern or (), targeted, pattern=True)
    _check_names(config, "modules_to_save", config.modules_to_save or (), layers)
    _check_no_router(targeted)
    if config.serve_as == "adapter":
        _check_not_fused(model, targeted)
    _check_blocks(model, config)
    _check_whole_layers(model, config)


def _check_patterns(config: TrainingConfig, targets: str | Collection[str]) -> None:
    patterns = [("target_modules", targets)] if isinstance(targets, str) else []
    patterns += [("rank_pattern", name) for name in config.rank_pattern or ()]
    patterns += [("alpha_pattern", name) for name in config.alpha_pattern or ()]
    for param, pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise BaseModelError(
                f"`{param}` has {pattern!r}, which is neither a layer's name nor a regular expression: {error}.",
                param=param,
            ) from error


def _check_names(
    config: TrainingConfig, param: str, names: Iterable[str], layers: Sequence[str], *, pattern: bool = False
) -> None:
    """Check that each of `names` matches one of `layers`; with `pattern`, as a regular expression for the end."""
    for name in names:
        if not any(_matches_end(layer, name) if pattern else _matches_name(layer, [name]) for layer in layers):
            known = last_names(layer for layer in layers if layer and not layer.rsplit(".", 1)[-1].isdigit())
            raise BaseModelError(
                f"`{param}` has {name!r}, but {config.base_model} has no such layer. Available layers: "
                f"{format_names(known)}.",
                param=param,
            )


def _check_not_fused(model: Any, targeted: Sequence[str]) -> None:
    fused = FUSED_IN_VLLM.get(model.config.model_type, ())
    found = next((name for name in targeted if name.rsplit(".", 1)[-1] in fused), None)
    if found:
        raise BaseModelError(
            f"`target_modules` includes {found}, but vLLM can't load an adapter on that layer "
            f"({model.config.model_type}). Set `exclude_modules: [{found.rsplit('.', 1)[-1]}]`, or `serve_as: "
            "model`.",
            param="target_modules",
        )


def _check_no_router(targeted: Iterable[str]) -> None:
    routers = [name for name in targeted if name.rsplit(".", 1)[-1] in ROUTERS]
    if routers:
        raise BaseModelError(
            f"`target_modules` has {routers[0]}, which routes tokens to experts; vLLM can't load an adapter on it. "
            "Leave it out, as `all-linear` does.",
            param="target_modules",
        )


def _check_blocks(model: Any, config: TrainingConfig) -> None:
    n_blocks = model.config.get_text_config().num_hidden_layers
    beyond = [number for number in config.layers_to_transform or () if number >= n_blocks]
    if beyond:
        raise BaseModelError(
            f"`layers_to_transform` has block {beyond[0]}, but {config.base_model} has {n_blocks} blocks, "
            "counted from 0.",
            param="layers_to_transform",
        )


def _check_whole_layers(model: Any, config: TrainingConfig) -> None:
    for name, layer in model.named_modules():
        if _matches_name(name, config.modules_to_save or ()) and isinstance(layer, Linear4bit):
            raise BaseModelError(
                f"`modules_to_save` has {name}, which is quantized to 4 bits and can't be trained fully. Set "
                "`quantization: none`, or leave it out.",
                param="modules_to_save",
            )


def _matches_name(layer: str, names: str | Collection[str]) -> bool:
    """Match as PEFT does: a regular expression for the full name, or the name itself or its end."""
    if isinstance(names, str):
        return re.fullmatch(names, layer) is not None
    return any(layer == name or layer.endswith(f".{name}") for name in names)


def _matches_end(layer: str, pattern: str) -> bool:
    return re.match(rf"(.*\.)?({pattern})$", layer) is not None


def last_names(layers: Iterable[str]) -> list[str]:
    """Return the last part of each name, without duplicates, sorted."""
    return sorted({name.rsplit(".", 1)[-1] for name in layers})


def format_names(names: Iterable[str]) -> str:
    """Return `names` for display, sorted."""
    return ", ".join(sorted(names))


def first_line(error: Exception) -> str:
    """Return the first line of the message of `error`, or its type if it is empty."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
