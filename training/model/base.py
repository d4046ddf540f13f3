"""Loads the base model and what is trained of it: where it is found, its dtype and quantisation."""

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
from training.model.adapter_dir import fingerprint, is_for_other_base
from training.model.adapters import add_adapter
from training.model.existing_adapter import load_adapter
from training.model.layers import BaseModelError, has_fused_experts
from training.preflight.contradictions import find_full_contradictions

__all__ = ["Base", "BaseModelError", "base_folder", "compute_dtype", "load_base"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Base:
    """A tokenizer and a model that is ready for training."""

    model: Any
    """A `PeftModel`; for `full` the bare model."""
    tokenizer: Any
    pad_token_id: int
    compute_dtype: torch.dtype
    """The dtype of the arithmetic."""
    kind: FinetuningType
    """What is trained."""
    folder: Path
    """The folder of the base's files."""
    n_parameters: int
    """Of the base alone; 4-bit weights count one each."""
    n_trainable: int
    """Number of trained parameters."""
    start: str
    """Fingerprint of the initial trained weights; a result with the same one has learned nothing."""
    notes: tuple[str, ...] = ()
    """Notes for the user, a sentence each."""

    @cached_property
    def sha256(self) -> str:
        """The hash that identifies the base, computed from its files once."""
        return base_model_sha256(self.folder)


def compute_dtype(choice: str) -> torch.dtype:
    """Return the dtype for `choice` on this machine.

    `auto` is bfloat16 on a GPU that supports it and on a CPU with instructions for it (AVX512-BF16 or AMX); without
    them bfloat16 took twice as long as float32.
    """
    if choice != "auto":
        return DTYPES[choice]
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32


def load_base(config: TrainingConfig) -> Base:
    """Load the base named by `config`, with what is to be trained: a new adapter, that of `from_adapter`, or all of it.

    A frozen base is stored in nf4 (QLoRA, https://arxiv.org/abs/2305.14314) or in the compute dtype. Trained weights
    are stored in float32, with `full` the whole model: in 16 bit, the usual step sizes are rounded away. On a GPU the
    arithmetic is in 16 bit all the same; on a CPU `full` computes in float32.

    Raises:
        BaseModelError: it can't be found or read, or can't be trained as configured.
    """
    _check_contradictions(config)
    dtype = _choose_dtype(config)
    tokenizer, model = _load(config, dtype)
    _keep_autograd_multiplication(model)
    model.config.use_cache = False
    pad_token_id = _pad_token_id(tokenizer, model)
    n_parameters = model.num_parameters()
    notes: tuple[str, ...] = ()
    if has_fused_experts(model) and config.finetuning_type != "full":
        held = str(dtype).removeprefix("torch.")
        notes = (f"this model's experts are fused weights: they stay in {held}, without adapters",)
    trained, adapter_notes = _prepare_trained(model, config)
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
        notes=notes + adapter_notes,
    )


def base_folder(config: TrainingConfig) -> Path:
    """Return the folder of the base model's files: its own, or one in the hub's cache.

    Raises:
        BaseModelError: they aren't there.
    """
    if config.base_is_folder:
        return Path(config.base_model)
    try:
        return Path(cached_file(config.base_model, "config.json", local_files_only=True)).parent
    except (OSError, ValueError, HFValidationError) as error:
        raise BaseModelError(_explain_load_failure(config, error)) from error


def _check_contradictions(config: TrainingConfig) -> None:
    for param, sentence in find_full_contradictions(config):
        raise BaseModelError(sentence, param=param)


def _choose_dtype(config: TrainingConfig) -> torch.dtype:
    on_cpu = not torch.cuda.is_available()
    return torch.float32 if config.finetuning_type == "full" and on_cpu else compute_dtype(config.compute_dtype)


def _load(config: TrainingConfig, dtype: torch.dtype) -> tuple[Any, Any]:
    attention = {} if config.attn_implementation == "auto" else {"attn_implementation": config.attn_implementation}
    held = torch.float32 if config.finetuning_type == "full" else dtype
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.base_model, **_source_options(config))
        model = AutoModelForCausalLM.from_pretrained(
            config.base_model,
            use_safetensors=True,
            dtype=held,
            **attention,
            **_quantization_options(config, dtype),
            **_source_options(config),
        )
    except (OSError, ValueError, KeyError, ImportError, HFValidationError, SafetensorError) as error:
        if attention and "attention" in str(error).lower():
            raise BaseModelError(
                f"`attn_implementation` {config.attn_implementation} can't be used here: {error}. Use `auto`.",
                param="attn_implementation",
            ) from error
        raise BaseModelError(_explain_load_failure(config, error)) from error
    return tokenizer, model


def _source_options(config: TrainingConfig) -> dict[str, Any]:
    return {"local_files_only": config.base_is_folder, "trust_remote_code": False}


def _quantization_options(config: TrainingConfig, dtype: torch.dtype) -> dict[str, Any]:
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


def _prepare_trained(model: Any, config: TrainingConfig) -> tuple[Any, tuple[str, ...]]:
    """Return the model with what is trained of it, and notes for the user."""
    if config.quantization == "nf4" and not has_fused_experts(model):  # it would cast the experts to float32
        # Checkpointing is turned on by the trainer: what `auto` means is known only when the rows are counted.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if config.finetuning_type == "full":
        return model, ()
    if config.from_adapter:
        _check_same_base(config)
        return load_adapter(model, config, Path(config.from_adapter))
    return add_adapter(model, config), ()


def _check_same_base(config: TrainingConfig) -> None:
    """Check the base of `from_adapter`: our own adapters record its hash; others fit if their layers do."""
    directory = Path(str(config.from_adapter))
    if not directory.is_dir():
        raise BaseModelError(
            f"`from_adapter` is {config.from_adapter!r}, but there is no such folder. Use an adapter's directory.",
            param="from_adapter",
        )
    try:
        is_other = is_for_other_base(directory, base_folder(config))
    except ValueError as error:
        raise BaseModelError(
            f"The adapter in {directory} can't be used: {error}. Copy or train it again.", param="from_adapter"
        ) from error
    if is_other:
        raise BaseModelError(
            f"The adapter in {directory} was trained on a base model with different weights (by their hash) than "
            f"{config.base_model}. Set `base_model` to that model.",
            param="from_adapter",
        )


def _keep_autograd_multiplication(model: Any) -> None:
    """Make 4-bit layers use the multiplication that supports autograd.

    On a CPU with AVX512-BF16, bitsandbytes 0.50.2 repacks a layer's weights on its first evaluation and from then on
    multiplies outside autograd, in training too: after one validation no gradient reaches the layers below, and a layer
    with a bias (Qwen's q, k, v) fails at once. DoRA, which reads the weights to compute their norm, would read repacked
    ones.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _pad_token_id(tokenizer: Any, model: Any) -> int:
    """Return a padding token from the existing vocabulary: the tokenizer's own, the unknown token, or the end token.

    Padding is masked out of attention and loss, so any token works; a new one would enlarge the embedding, and with it
    every adapter. An id beyond the embedding, which some tokenizers have, is skipped.
    """
    rows = model.get_input_embeddings().num_embeddings
    for token_id in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id):
        if token_id is not None and token_id < rows:
            return int(token_id)
    return 0


def _cpu_has_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _explain_load_failure(config: TrainingConfig, error: Exception) -> str:
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
            f"Can't load the base model in {Path(config.base_model)}: {what}. Use a folder with config.json, "
            "safetensors weights and a tokenizer."
        )
    return (
        f"The base model {config.base_model!r} is neither a local folder nor available on the Hugging Face hub: "
        f"{reason}. Check its name and the network, or download it and use the folder."
    )
