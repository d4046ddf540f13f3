"""The base model in 4 bit with an adapter on it. Owns how a base is found, held and computed; knows no data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from huggingface_hub.errors import HFValidationError
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from training.config import TrainingConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class BaseModelError(Exception):
    """The base model can't be found, read or adapted."""

    def __init__(self, message: str, param: str = "base_model") -> None:
        self.param = param
        super().__init__(message)


@dataclass(frozen=True)
class Base:
    """A tokenizer and a model that carries a fresh adapter."""

    model: PeftModel
    tokenizer: Any
    pad_token_id: int
    compute_dtype: torch.dtype


def compute_dtype(choice: str) -> torch.dtype:
    """The dtype that `choice` means on this machine.

    `auto` is bfloat16 on a GPU that has it and on a CPU with instructions for it (AVX512-BF16 or AMX); without them
    bfloat16 was seen to take twice as long as float32.
    """
    if choice != "auto":
        return DTYPES[choice]
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32


def load_base(config: TrainingConfig) -> Base:
    """The base that `config` names, frozen, with an untrained adapter of rank `config.r` on it.

    Raises:
        BaseModelError: it can't be found or read, or has none of the `target_modules`.
    """
    dtype = compute_dtype(config.compute_dtype)
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.base_model, **_where(config))
        model = AutoModelForCausalLM.from_pretrained(
            config.base_model, use_safetensors=True, dtype=dtype, **_quantization(config, dtype), **_where(config)
        )
    except (OSError, ValueError, KeyError, HFValidationError, SafetensorError) as error:
        raise BaseModelError(_cannot_load(config, error)) from error
    _keep_differentiable(model)
    pad_token_id = _pad_token_id(tokenizer, model)
    return Base(_with_adapter(model, config), tokenizer, pad_token_id, dtype)


def _where(config: TrainingConfig) -> dict[str, Any]:
    return {"local_files_only": config.base_is_folder, "trust_remote_code": False}


def _quantization(config: TrainingConfig, dtype: torch.dtype) -> dict[str, Any]:
    device_map = {"": torch.cuda.current_device()} if torch.cuda.is_available() else {"": "cpu"}
    if config.quantization == "none":
        return {"device_map": device_map}
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=config.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"device_map": device_map, "quantization_config": four_bit}


def _with_adapter(model: Any, config: TrainingConfig) -> PeftModel:
    """`model`, frozen, with LoRA matrices beside its layers (https://arxiv.org/abs/2106.09685, QLoRA: 2305.14314)."""
    model.config.use_cache = False
    if config.quantization == "nf4":
        model = prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=config.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
    elif config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    targets = config.target_modules if isinstance(config.target_modules, str) else list(config.target_modules)
    lora = LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        named = sorted(
            {name.rsplit(".", 1)[-1] for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
        )
        raise BaseModelError(
            f"`target_modules` is {targets!r}, but {config.base_model} has no such layers. "
            f"Give `all-linear`, or some of: {', '.join(named)}.",
            param="target_modules",
        ) from error


def _keep_differentiable(model: Any) -> None:
    """Hold 4-bit layers to the multiplication that gradients flow through.

    On a CPU with AVX512-BF16, bitsandbytes 0.50.2 repacks a layer's weights at its first evaluation and from then on
    multiplies outside autograd, in training too: after one validation no gradient reaches the layers beneath, and a
    layer with a bias (Qwen's q, k, v) fails at once.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _pad_token_id(tokenizer: Any, model: Any) -> int:
    """A token to pad with that the vocabulary already has: the tokenizer's own, the unknown token, or the end token.

    Padding is masked out of attention and loss, so any token serves; a new one would grow the embedding, and with it
    every adapter. An id beyond the embedding, which some tokenizers name, is passed over.
    """
    rows = model.get_input_embeddings().num_embeddings
    for token_id in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id):
        if token_id is not None and token_id < rows:
            return int(token_id)
    return 0


def _cpu_has_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _cannot_load(config: TrainingConfig, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if config.base_is_folder:
        names = {entry.name for entry in os.scandir(config.base_model)}
        lacking = [what for what, there in (
            ("config.json", "config.json" in names),
            ("*.safetensors", any(name.endswith(".safetensors") for name in names)),
            ("tokenizer.json", any(name.startswith("tokenizer") for name in names)),
        ) if not there]  # fmt: skip
        what = f"it has no {' and no '.join(lacking)}" if lacking else reason
        return (
            f"The base model in {Path(config.base_model)} can't be loaded: {what}. "
            "Give a folder with config.json, weights as safetensors and a tokenizer."
        )
    return (
        f"The base model {config.base_model!r} is no folder here, nor to be had from the Hugging Face hub: {reason}. "
        "Check its name and the network, or download it and give the folder."
    )
