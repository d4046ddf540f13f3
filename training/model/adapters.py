"""Adds new adapters to a base model: LoRA and its variants, a prefix, virtual tokens."""

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
from training.model.layers import BaseModelError, check_layers, find_linear_layers, first_line, format_names, last_names


def add_adapter(model: Any, config: TrainingConfig) -> PeftModel:
    """Freeze `model` and add a new adapter of the `finetuning_type`: LoRA (https://arxiv.org/abs/2106.09685), rsLoRA
    (2312.03732), DoRA (2402.09353), prefix tuning (2101.00190) or P-tuning (2103.10385).

    Raises:
        BaseModelError: a setting names layers that the model lacks, or requires something that it can't do.
    """
    if config.finetuning_type != "lora":
        return _add_virtual_tokens(model, config)
    lora = _lora_config(model, config)
    try:
        adapted = get_peft_model(model, lora)
    except ValueError as error:
        raise BaseModelError(
            f"Can't add an adapter to {config.base_model} with these settings: {first_line(error)} `target_modules` "
            f"can be {format_names(last_names(find_linear_layers(model)))}.",
            param="target_modules",
        ) from error
    if config.init_lora_weights == "orthogonal":
        _fill_orthogonal(adapted)
    return cast_trained_to_float32(adapted)


def _lora_config(model: Any, config: TrainingConfig) -> LoraConfig:
    targets = _resolve_targets(model, config)
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


def _resolve_targets(model: Any, config: TrainingConfig) -> str | list[str]:
    """Return names of layers, or one regular expression for their full names.

    `all-linear` is expanded here: PEFT doesn't accept it together with `layers_to_transform`, and includes routers.
    """
    if config.target_modules == "all-linear":
        return last_names(find_linear_layers(model))
    if isinstance(config.target_modules, str):
        is_one_name = re.fullmatch(r"[\w.]+", config.target_modules)
        return [config.target_modules] if is_one_name else config.target_modules
    return list(config.target_modules)


def _add_virtual_tokens(model: Any, config: TrainingConfig) -> PeftModel:
    if config.finetuning_type == "prefix_tuning" and config.gradient_checkpointing is True:
        raise BaseModelError(
            "`gradient_checkpointing` is true, but prefix tuning needs a cache that checkpointing drops. Turn it "
            "off, or use `finetuning_type: p_tuning`.",
            param="gradient_checkpointing",
        )
    kind = PrefixTuningConfig if config.finetuning_type == "prefix_tuning" else PromptEncoderConfig
    extra = {"prefix_projection": True} if kind is PrefixTuningConfig and config.encoder_hidden_size else {}
    width = config.encoder_hidden_size or model.config.get_text_config().hidden_size
    tokens = kind(
        task_type="CAUSAL_LM", num_virtual_tokens=config.num_virtual_tokens, encoder_hidden_size=width, **extra
    )
    try:
        return cast_trained_to_float32(get_peft_model(model, tokens))
    except (ValueError, KeyError, AttributeError) as error:
        raise BaseModelError(
            f"{config.base_model} can't be trained with `finetuning_type: {config.finetuning_type}`: "
            f"{first_line(error)}. Use `lora`.",
            param="finetuning_type",
        ) from error


def cast_trained_to_float32(adapted: PeftModel) -> PeftModel:
    """Cast trained weights to float32, whatever the base's dtype: the usual step sizes would be lost in 16 bit.

    PEFT casts inputs and outputs of an adapter. For a layer that is trained whole, this function does.
    """
    for layer in adapted.modules():
        if isinstance(layer, ModulesToSaveWrapper):
            _cast_inputs_and_output(layer.modules_to_save["default"], next(layer.original_module.parameters()).dtype)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def _cast_inputs_and_output(layer: torch.nn.Module, dtype: torch.dtype) -> None:
    """Make `layer`, which is in float32, accept any float dtype and return `dtype`, for neighbours in 16 bit."""
    if dtype == torch.float32:
        return
    layer.register_forward_pre_hook(
        lambda _, inputs: tuple(value.float() if value.is_floating_point() else value for value in inputs)
    )
    layer.register_forward_hook(lambda _, inputs, output: output.to(dtype))


def _fill_orthogonal(adapted: PeftModel) -> None:
    """Initialise A and B so that their rows and columns use different halves of one orthogonal basis, and BA is 0.

    PEFT has this (https://datta0.github.io/posts/rethink-lora-init/), but creates the values in the base's dtype:
    impossible in 4 bit, and no longer 0 in 16 bit.
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
            f"`init_lora_weights: orthogonal` needs an even rank, but {odd[0]} is odd. Use an even rank.",
            param="init_lora_weights",
        )
