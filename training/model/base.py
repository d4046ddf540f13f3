"""The base model, and what is trained of it. Owns how a base is found, held and computed; knows no data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from huggingface_hub.errors import HFValidationError
from peft import prepare_model_for_kbit_training
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import cached_file

from adapter_format.hashing import base_model_sha256
from training.config.config import FinetuningType, TrainingConfig
from training.model.adapter_dir import fingerprint, made_for_other_base
from training.model.adapters import fresh_adapter
from training.model.existing_adapter import existing_adapter
from training.model.layers import BaseModelError, has_fused_experts
from training.preflight.contradictions import whole_model_contradictions

__all__ = ["Base", "BaseModelError", "base_folder", "compute_dtype", "load_base"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Base:
    """A tokenizer and a model that is ready to be trained."""

    model: Any
    """A `PeftModel`; for `full` the bare model."""
    tokenizer: Any
    pad_token_id: int
    compute_dtype: torch.dtype
    """What the arithmetic is done in."""
    kind: FinetuningType
    """What is trained of it."""
    folder: Path
    """Where the base's files are."""
    n_parameters: int
    """Of the base alone, those in 4 bit counted one by one."""
    n_trainable: int
    """Parameters that are trained."""
    start: str
    """Fingerprint of the trained weights as they are now; a result with the same one has learned nothing."""
    notes: tuple[str, ...] = ()
    """What a user should be told about it, a sentence each."""

    @cached_property
    def sha256(self) -> str:
        """The hash that names the base, read from its files once."""
        return base_model_sha256(self.folder)


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
    """The base that `config` names, with what is to be trained: a fresh adapter, the one of `from_adapter`, or all.

    A frozen base is held in nf4 (QLoRA, https://arxiv.org/abs/2305.14314) or in the compute dtype. What is trained is
    held in float32, with `full` the whole model: in 16 bit, steps as small as usual are rounded away. On a GPU the
    arithmetic is in 16 bit all the same; on a CPU `full` computes in float32.

    Raises:
        BaseModelError: it can't be found or read, or can't be trained as `config` says.
    """
    _check_possible(config)
    dtype = _arithmetic(config)
    tokenizer, model = _load(config, dtype)
    _keep_differentiable(model)
    model.config.use_cache = False
    pad_token_id = _pad_token_id(tokenizer, model)
    n_parameters = model.num_parameters()
    notes: tuple[str, ...] = ()
    if has_fused_experts(model) and config.finetuning_type != "full":
        held = str(dtype).removeprefix("torch.")
        notes = (f"the experts of this model are blocks of weights: they are held in {held}, with no adapter on them",)
    trained, told = _trained(model, config)
    return Base(
        model=trained,
        tokenizer=tokenizer,
        pad_token_id=pad_token_id,
        compute_dtype=dtype,
        kind=config.finetuning_type,
        folder=base_folder(config),
        n_parameters=n_parameters,
        n_trainable=sum(parameter.numel() for parameter in trained.parameters() if parameter.requires_grad),
        start=fingerprint(trained),
        notes=notes + told,
    )


def base_folder(config: TrainingConfig) -> Path:
    """Where the base model's files are: its own folder, or the hub's cache.

    Raises:
        BaseModelError: they aren't here.
    """
    if config.base_is_folder:
        return Path(config.base_model)
    try:
        return Path(cached_file(config.base_model, "config.json", local_files_only=True)).parent
    except (OSError, ValueError, HFValidationError) as error:
        raise BaseModelError(_cannot_load(config, error)) from error


def _check_possible(config: TrainingConfig) -> None:
    for param, sentence in whole_model_contradictions(config):
        raise BaseModelError(sentence, param=param)


def _arithmetic(config: TrainingConfig) -> torch.dtype:
    on_cpu = not torch.cuda.is_available()
    return torch.float32 if config.finetuning_type == "full" and on_cpu else compute_dtype(config.compute_dtype)


def _load(config: TrainingConfig, dtype: torch.dtype) -> tuple[Any, Any]:
    attention = {} if config.attn_implementation == "auto" else {"attn_implementation": config.attn_implementation}
    held = torch.float32 if config.finetuning_type == "full" else dtype
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.base_model, **_where(config))
        model = AutoModelForCausalLM.from_pretrained(
            config.base_model,
            use_safetensors=True,
            dtype=held,
            **attention,
            **_quantization(config, dtype),
            **_where(config),
        )
    except (OSError, ValueError, KeyError, ImportError, HFValidationError, SafetensorError) as error:
        if attention and "attention" in str(error).lower():
            raise BaseModelError(
                f"`attn_implementation` {config.attn_implementation} can't be used here: {error}. Leave it at `auto`.",
                param="attn_implementation",
            ) from error
        raise BaseModelError(_cannot_load(config, error)) from error
    return tokenizer, model


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


def _trained(model: Any, config: TrainingConfig) -> tuple[Any, tuple[str, ...]]:
    """The model with what is trained of it, and what to tell."""
    if config.quantization == "nf4" and not has_fused_experts(model):  # it would turn the experts into float32
        # Checkpointing is the trainer's to turn on: whether `auto` means it is known when the rows are counted.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if config.finetuning_type == "full":
        return model, ()
    if config.from_adapter:
        _check_same_base(config)
        return existing_adapter(model, config, Path(config.from_adapter))
    return fresh_adapter(model, config), ()


def _check_same_base(config: TrainingConfig) -> None:
    """An adapter of ours says what base it was made for; one of others fits if its layers do."""
    directory = Path(str(config.from_adapter))
    if not directory.is_dir():
        raise BaseModelError(
            f"`from_adapter` is {config.from_adapter!r}, which isn't a folder here. Give an adapter's directory.",
            param="from_adapter",
        )
    try:
        is_other = made_for_other_base(directory, base_folder(config))
    except ValueError as error:
        raise BaseModelError(
            f"The adapter in {directory} can't be used: {error}. Get it again.", param="from_adapter"
        ) from error
    if is_other:
        raise BaseModelError(
            f"The adapter in {directory} was made for a base whose weights have another hash than those of "
            f"{config.base_model}. Give that base as `base_model`.",
            param="from_adapter",
        )


def _keep_differentiable(model: Any) -> None:
    """Hold 4-bit layers to the multiplication that gradients flow through.

    On a CPU with AVX512-BF16, bitsandbytes 0.50.2 repacks a layer's weights at its first evaluation and from then on
    multiplies outside autograd, in training too: after one validation no gradient reaches the layers beneath, and a
    layer with a bias (Qwen's q, k, v) fails at once. DoRA, which reads the weights to measure their length, would read
    repacked ones.
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
