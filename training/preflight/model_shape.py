"""The shape of a base model, read from its config.json and safetensors headers: no weights, no torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapter_format.hashing import weight_files

_MAX_HEADER_BYTES = 100_000_000
"""The bound of the safetensors library itself."""
_UNGATED = frozenset({"gpt2", "gptj", "gpt_neo", "gpt_neox", "gpt_bigcode", "opt", "bloom", "falcon", "phi"})
"""Families whose MLP has two matrices, without a gate."""
_TIED_BY_DEFAULT = frozenset({"gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "opt", "bloom", "falcon"})
"""Families whose config.json doesn't mention that input and output embeddings are tied."""


class ModelShapeError(ValueError):
    """A config.json that doesn't say how large its model is."""


@dataclass(frozen=True)
class Linear:
    """A linear layer of every block."""

    name: str
    """Its module's own name, such as `q_proj`."""
    inputs: int
    outputs: int
    count: int = 1
    """How many of them a block has: the experts of a mixture."""
    quantized: bool = True
    """Whether bitsandbytes can quantise it to 4 bit; not for experts in one fused tensor."""

    @property
    def parameters(self) -> int:
        """Weights per block."""
        return self.inputs * self.outputs * self.count


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The sizes of a decoder-only language model."""

    model_type: str
    """As in transformers: `llama`, `qwen3`, `glm4`, …; empty if config.json doesn't say."""
    vocab_size: int
    """Rows of the embedding."""
    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Inner width of the MLP, of one expert in a mixture."""
    n_layers: int
    """Blocks."""
    n_heads: int
    """Attention heads."""
    n_kv_heads: int
    """Heads of keys and values."""
    head_dim: int
    """Width of one head."""
    n_experts: int = 0
    """Experts of each block's mixture; 0: an ordinary MLP."""
    experts_per_token: int = 0
    """Experts that each token goes through."""
    tied: bool = False
    """Whether input and output embeddings are tied."""
    max_positions: int | None = None
    """Maximum context length of the model, in tokens; None if config.json doesn't say."""
    parameters_on_disk: int | None = None
    """Weights counted in the safetensors headers; None without files."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """Return the shape described by a config.json, in the key names of any of the usual families.

        Raises:
            ModelShapeError: a size is missing or isn't a positive integer.
        """
        text = config.get("text_config")
        values = {**config, **text} if isinstance(text, Mapping) else dict(config)
        model_type = str(values.get("model_type") or "")
        hidden = _read_size(values, "hidden_size", "n_embd", "d_model")
        heads = _read_size(values, "num_attention_heads", "n_head", "n_heads", "num_heads")
        experts = _read_size(values, "num_local_experts", "num_experts", "n_routed_experts", default=0)
        inner = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim", "d_ff")
        return cls(
            model_type=model_type,
            vocab_size=_read_size(values, "vocab_size", "padded_vocab_size"),
            hidden_size=hidden,
            intermediate_size=_read_size(
                values, *(("moe_intermediate_size",) if experts else ()), *inner, default=4 * hidden
            ),
            n_layers=_read_size(values, "num_hidden_layers", "n_layer", "n_layers", "num_layers"),
            n_heads=heads,
            n_kv_heads=_read_size(
                values, "num_key_value_heads", "multi_query_group_num", "num_kv_heads", default=heads
            ),
            head_dim=_read_size(values, "head_dim", "kv_channels", default=max(1, hidden // heads)),
            n_experts=experts,
            experts_per_token=_read_size(values, "num_experts_per_tok", "num_experts_per_token", default=2)
            if experts
            else 0,
            tied=bool(values.get("tie_word_embeddings", model_type in _TIED_BY_DEFAULT)),
            max_positions=_read_max_positions(values),
        )

    @classmethod
    def from_folder(cls, folder: Path) -> ModelShape:
        """Return the shape of the model in `folder`, its parameters counted in its safetensors files if there are any.

        Raises:
            ModelShapeError: config.json can't be read, or doesn't say how large the model is.
        """
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelShapeError(f"{folder / 'config.json'} can't be read: {error}. Use a model's folder.") from error
        if not isinstance(config, dict):
            raise ModelShapeError(f"{folder / 'config.json'} must be a JSON object. Download the model again.")
        shape = cls.from_config(config)
        return cls(**{**shape.__dict__, "parameters_on_disk": _count_parameters(folder)})

    @property
    def gated(self) -> bool:
        """Whether the MLP has a gate: three matrices, where older models have two."""
        return self.model_type not in _UNGATED

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The linear layers of one block that can have an adapter, by the names that most families share."""
        hidden, keys = self.hidden_size, self.n_kv_heads * self.head_dim
        attention = self.n_heads * self.head_dim
        inner, count = self.intermediate_size, max(1, self.n_experts)
        fused = self.n_experts > 0
        gates = [Linear("gate_proj", hidden, inner, count, not fused)] if self.gated else []
        return (
            Linear("q_proj", hidden, attention),
            Linear("k_proj", hidden, keys),
            Linear("v_proj", hidden, keys),
            Linear("o_proj", attention, hidden),
            *gates,
            Linear("up_proj", hidden, inner, count, not fused),
            Linear("down_proj", inner, hidden, count, not fused),
        )

    @property
    def embedding_parameters(self) -> int:
        """Weights of the input embedding and, unless they are tied, the output embedding."""
        return self.vocab_size * self.hidden_size * (1 if self.tied else 2)

    @property
    def quantized_parameters(self) -> int:
        """Weights that bitsandbytes quantises to 4 bit: the blocks' linear layers, not the embeddings."""
        return self.n_layers * sum(linear.parameters for linear in self.linears if linear.quantized)

    @property
    def n_parameters(self) -> int:
        """All weights: counted on disk if possible, else from the sizes, without biases."""
        if self.parameters_on_disk is not None:
            return self.parameters_on_disk
        norms = self.hidden_size * (2 * self.n_layers + 1)
        routers = self.hidden_size * self.n_experts * self.n_layers
        blocks = self.n_layers * sum(linear.parameters for linear in self.linears)
        return self.embedding_parameters + blocks + norms + routers


def _read_size(values: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    """Return the value of the first of `names` that exists."""
    for name in names:
        value = values.get(name)
        if isinstance(value, list) and value and all(isinstance(size, int) for size in value):
            value = max(value)  # one size per block, as in some families
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < (1 if default != 0 else 0):
            raise ModelShapeError(f"{name} in config.json is {value!r}, but must be a whole number above 0.")
        return value
    if default is None:
        raise ModelShapeError(f"config.json has none of {', '.join(names)}, so the model's size isn't known.")
    return default


def _read_max_positions(values: Mapping[str, Any]) -> int | None:
    named = [values.get(name) for name in ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")]
    positions = next((value for value in named if isinstance(value, int) and value > 0), None)
    scaling = values.get("rope_scaling") or values.get("rope_parameters")
    if positions is None or not isinstance(scaling, Mapping):
        return positions
    kind = scaling.get("rope_type", scaling.get("type"))
    original, factor = scaling.get("original_max_position_embeddings", positions), scaling.get("factor")
    if kind == "yarn" and isinstance(original, int) and isinstance(factor, int | float):
        # YaRN checkpoints may give the length before scaling (https://arxiv.org/abs/2309.00071).
        return max(positions, int(original * factor))
    return positions


def _count_parameters(folder: Path) -> int | None:
    """Count the numbers in the weights of `folder`; None if there are none, or they are packed or damaged."""
    try:
        headers = [_read_header(file) for file in weight_files(folder)]
    except (OSError, ValueError, struct.error):
        return None  # the estimate falls back to the sizes; loading the base will report what is wrong with the file
    tensors = [entry for header in headers for name, entry in header.items() if name != "__metadata__"]
    plain = all(entry.get("dtype") in ("F64", "F32", "F16", "BF16") for entry in tensors)
    return sum(math.prod(entry["shape"]) for entry in tensors) if tensors and plain else None


def _read_header(file: Path) -> dict[str, Any]:
    """Read the header: 8 bytes of length, then JSON (https://huggingface.co/docs/safetensors/index#format)."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > min(_MAX_HEADER_BYTES, file.stat().st_size):
            raise ValueError(f"{file.name} has a header of {length} bytes")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"the header of {file.name} isn't a JSON object")
    return header
