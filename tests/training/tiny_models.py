"""Tiny random models of real architectures, for tests: the demo's tokenizer with a few thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from training.demo.tokenizer import train_tokenizer

TEXTS = ("What is the capital of France? Paris.", "What colour is snow? White.", "Tell me of the sea and the light.")
ARCHITECTURES: dict[str, tuple[type[Any], type[PreTrainedModel], dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "mixtral": (MixtralConfig, MixtralForCausalLM, {"num_local_experts": 4, "num_experts_per_tok": 2}),
}


def make_tiny_model(directory: Path, architecture: str = "llama", dtype: torch.dtype = torch.float32) -> Path:
    """A folder with a random model of two blocks, width 64, made from a fixed seed, and its tokenizer."""
    tokenizer = train_tokenizer(TEXTS, max_length=256)
    configuration, kind, extra = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    model = kind(
        configuration(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **extra,
        )
    )
    model.to(dtype).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
