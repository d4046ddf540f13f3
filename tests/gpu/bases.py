"""Well-known base models without their weights: the real config.json and safetensors headers over sparse files."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_theta": 1e6, "eos_token_id": 151645}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "rope_theta": 1e6, "eos_token_id": 151645}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_theta": 5e5, "eos_token_id": 128001}
_SIZES: dict[str, tuple[dict[str, Any], int, int, int, int, int, int, int, bool]] = {
    # name: family, hidden, inner, layers, heads, key-value heads, vocabulary, positions, tied; from their config.json
    "Qwen2.5-0.5B-Instruct": (QWEN2, 896, 4864, 24, 14, 2, 151936, 32768, True),
    "Qwen2.5-1.5B-Instruct": (QWEN2, 1536, 8960, 28, 12, 2, 151936, 32768, True),
    "Qwen2.5-3B-Instruct": (QWEN2, 2048, 11008, 36, 16, 2, 151936, 32768, True),
    "Qwen2.5-7B-Instruct": (QWEN2, 3584, 18944, 28, 28, 4, 152064, 32768, False),
    "Qwen3-8B": (QWEN3, 4096, 12288, 36, 32, 8, 151936, 40960, False),
    "Llama-3.1-8B-Instruct": (LLAMA, 4096, 14336, 32, 32, 8, 128256, 131072, False),
    "Qwen2.5-14B-Instruct": (QWEN2, 5120, 13824, 48, 40, 8, 152064, 32768, False),
    "Qwen2.5-32B-Instruct": (QWEN2, 5120, 27648, 64, 40, 8, 152064, 32768, False),
    "Llama-3.1-70B-Instruct": (LLAMA, 8192, 28672, 80, 64, 8, 128256, 131072, False),
}
BASES = tuple(_SIZES)


def write_base(folder: Path, name: str) -> Path:
    """The base `name` in `folder`, a few kB on disk; its path."""
    family, hidden, inner, layers, heads, kv_heads, vocabulary, positions, tied = _SIZES[name]
    config = family | {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": hidden // heads, "vocab_size": vocabulary,
        "max_position_embeddings": positions, "tie_word_embeddings": tied, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    _write_sparse(path / "model.safetensors", dict(_tensors(config)))
    return path


def _tensors(config: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    hidden, inner, family = config["hidden_size"], config["intermediate_size"], config["model_type"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    yield "model.embed_tokens.weight", [config["vocab_size"], hidden]
    for number in range(config["num_hidden_layers"]):
        block = f"model.layers.{number}"
        for name, width in (("q", hidden), ("k", keys), ("v", keys)):
            yield f"{block}.self_attn.{name}_proj.weight", [width, hidden]
            if family == "qwen2":
                yield f"{block}.self_attn.{name}_proj.bias", [width]
        if family == "qwen3":
            yield from ((f"{block}.self_attn.{name}_norm.weight", [config["head_dim"]]) for name in "qk")
        yield f"{block}.self_attn.o_proj.weight", [hidden, hidden]
        yield from ((f"{block}.mlp.{name}_proj.weight", [inner, hidden]) for name in ("gate", "up"))
        yield f"{block}.mlp.down_proj.weight", [hidden, inner]
        yield from ((f"{block}.{name}_layernorm.weight", [hidden]) for name in ("input", "post_attention"))
    yield "model.norm.weight", [hidden]
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", [config["vocab_size"], hidden]


def _write_sparse(path: Path, shapes: dict[str, list[int]]) -> None:
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + at)
