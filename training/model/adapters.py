"""Fresh adapters on a base model: LoRA and its kin, a prefix, virtual tokens. Knows no files."""

from __future__ import annotations

import re
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    get_peft_model,
)
from peft.utils import ModulesToSaveWrapper

from training.config.config import TrainingConfig
from training.model.layers import BaseModelError, check_layers, first_line, last_names, linear_layers, listed


def fresh_adapter(model: Any, config: TrainingConfig) -> PeftModel:
    """`model`, frozen, with a new adapter of the `finetuning_type`: LoRA (https://arxiv.org/abs/2106.09685), rsLoRA
    (2312.03732), DoRA (2402.09353), prefix tuning (2101.00190) or P-tuning (2103.10385).

    Raises:
        BaseModelError: a setting names layers that the model doesn't have, or asks for what it can't do.
    """
    if config.finetuning_type != "lora":
        return _with_virtual_tokens(model, config)
    lora = _lora_config(model, config)
    try:
        adapted = get_peft_model(model, lora)
    except ValueError as error:
        raise BaseModelError(
            f"No adapter can be put on {config.base_model} as the configuration says: {first_line(error)} "
            f"`target_modules` may name {listed(last_names(linear_layers(model)))}.",
            param="target_modules",
        ) from error
    if config.init_lora_weights == "orthogonal":
        _fill_orthogonal(adapted)
    return in_float32(adapted)


def _lora_config(model: Any, config: TrainingConfig) -> LoraConfig:
    targets = _targets(model, config)
    check_layers(model, config, targets)
    if config.init_lora_weights == "orthogonal":
        _check_even_ranks(config)
    return LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        exclude_modules=list(config.exclude_modules) if config.exclude_modules else None,
        layers_to_transform=list(config.layers_to_transform) if config.layers_to_transform else None,
        rank_pattern=dict(config.rank_pattern or {}),
        alpha_pattern=dict(config.alpha_pattern or {}),
        modules_to_save=list(config.modules_to_save) if config.modules_to_save else None,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        init_lora_weights="gaussian" if config.init_lora_weights == "gaussian" else True,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _targets(model: Any, config: TrainingConfig) -> str | list[str]:
    """Names of layers, or one regular expression for their whole names.

    `all-linear` is spelled out here: PEFT doesn't take it together with `layers_to_transform`, and takes routers too.
    """
    if config.target_modules == "all-linear":
        return last_names(linear_layers(model))
    if isinstance(config.target_modules, str):
        is_one_name = re.fullmatch(r"[\w.]+", config.target_modules)
        return [config.target_modules] if is_one_name else config.target_modules
    return list(config.target_modules)


def _with_virtual_tokens(model: Any, config: TrainingConfig) -> PeftModel:
    if config.finetuning_type == "prefix_tuning" and config.gradient_checkpointing is True:
        raise BaseModelError(
            "`gradient_checkpointing` is true, but prefix tuning hands the layers a cache, which checkpointing drops. "
            "Turn it off, or choose `finetuning_type: p_tuning`.",
            param="gradient_checkpointing",
        )
    kind = PrefixTuningConfig if config.finetuning_type == "prefix_tuning" else PromptEncoderConfig
    extra = {"prefix_projection": True} if kind is PrefixTuningConfig and config.encoder_hidden_size else {}
    width = config.encoder_hidden_size or model.config.get_text_config().hidden_size
    tokens = kind(
        task_type="CAUSAL_LM", num_virtual_tokens=config.num_virtual_tokens, encoder_hidden_size=width, **extra
    )
    try:
        return in_float32(get_peft_model(model, tokens))
    except (ValueError, KeyError, AttributeError) as error:
        raise BaseModelError(
            f"{config.base_model} can't be tuned by `{config.finetuning_type}`: {first_line(error)}. Choose `lora`.",
            param="finetuning_type",
        ) from error


def in_float32(adapted: PeftModel) -> PeftModel:
    """Trained weights in float32, whatever the base is in: steps as small as usual would be lost in 16 bit.

    PEFT sees to it that an adapter's input and output fit. Of a layer that is trained whole, we do.
    """
    for layer in adapted.modules():
        if isinstance(layer, ModulesToSaveWrapper):
            _convert_around(layer.modules_to_save["default"], next(layer.original_module.parameters()).dtype)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def _convert_around(layer: torch.nn.Module, dtype: torch.dtype) -> None:
    """Has `layer`, in float32, take what it's given, and give `dtype`, where the layers beside it are in 16 bit."""
    if dtype == torch.float32:
        return
    layer.register_forward_pre_hook(
        lambda _, inputs: tuple(one.float() if one.is_floating_point() else one for one in inputs)
    )
    layer.register_forward_hook(lambda _, inputs, output: output.to(dtype))


def _fill_orthogonal(adapted: PeftModel) -> None:
    """First values A and B whose rows and columns use different halves of one orthogonal basis, so that BA is 0.

    PEFT has this (https://datta0.github.io/posts/rethink-lora-init/), but makes the values in the base's dtype: not
    possible in 4 bit, and no longer 0 in 16 bit.
    """
    for layer in adapted.modules():
        if not hasattr(layer, "lora_A") or "default" not in layer.lora_A:
            continue
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        rank = a.shape[0]
        basis = torch.linalg.qr(torch.randn(rank, rank))[0]
        a.data = (basis[: rank // 2].T @ torch.randn(rank // 2, a.shape[1]) / 10).to(a.device)
        b.data = (torch.randn(b.shape[0], rank // 2) @ basis[rank // 2 :] / 10).to(b.device)


def _check_even_ranks(config: TrainingConfig) -> None:
    odd = [rank for rank in (config.r, *(config.rank_pattern or {}).values()) if rank % 2]
    if odd:
        raise BaseModelError(
            f"`init_lora_weights: orthogonal` splits the rank into halves, and {odd[0]} is odd. Give an even rank.",
            param="init_lora_weights",
        )
