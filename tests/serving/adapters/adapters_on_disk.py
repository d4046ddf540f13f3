"""Writes base models and adapters of a few kB, so that a test can damage one thing and keep the rest sound."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from adapter_format.names import fine_tuned_model_name, new_adapter_id
from serving import BaseModel, resolve_base_model

Arrays = dict[str, np.ndarray[Any, np.dtype[np.float32]]]

HIDDEN, INTERMEDIATE, LAYERS = 8, 12, 2


def write_base(path: Path, *, hidden: int = HIDDEN, layers: int = LAYERS, seed: int = 0) -> BaseModel:
    """A base model with a few linear layers; enough for every check, not for an engine."""
    path.mkdir(parents=True)
    numbers = np.random.default_rng(seed)
    shapes = {"self_attn.q_proj": (hidden, hidden), "mlp.down_proj": (hidden, INTERMEDIATE)}
    weights = {
        f"model.layers.{layer}.{module}.weight": numbers.standard_normal(shape, np.float32)
        for layer in range(layers)
        for module, shape in shapes.items()
    }
    weights["model.embed_tokens.weight"] = numbers.standard_normal((16, hidden), np.float32)
    save_file(weights, path / "model.safetensors")
    config = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2, "dtype": "float32"}
    (path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 128}))
    (path / "tokenizer.json").write_text("{}")
    return resolve_base_model(str(path))


def lora_tensors(base: BaseModel, *, r: int = 2, scale: float = 1.0, seed: int = 0) -> Arrays:
    """lora_A and lora_B for the attention's and the MLP's linear layers of `base`."""
    numbers = np.random.default_rng(seed)
    tensors: Arrays = {}
    for module, (out_features, in_features) in _linear_layers(base.path).items():
        name = f"base_model.model.{module}"
        tensors[f"{name}.lora_A.weight"] = numbers.standard_normal((r, in_features), np.float32) * np.float32(scale)
        tensors[f"{name}.lora_B.weight"] = numbers.standard_normal((out_features, r), np.float32) * np.float32(scale)
    return tensors


def write_peft_adapter(
    path: Path, base: BaseModel, *, r: int = 2, tensors: Arrays | None = None, **config: object
) -> Path:
    """What PEFT's save_pretrained writes: a config and tensors, no manifest."""
    path.mkdir(parents=True)
    settings: Mapping[str, object] = {
        "peft_type": "LORA",
        "r": r,
        "lora_alpha": 2 * r,
        "target_modules": ["q_proj", "down_proj"],
        "bias": "none",
    }
    (path / "adapter_config.json").write_text(json.dumps({**settings, **config}))
    save_file(lora_tensors(base, r=r) if tensors is None else tensors, path / "adapter_model.safetensors")
    return path


def write_adapter(
    adapters_dir: Path, base: BaseModel, *, manifest: Mapping[str, object] | None = None, **peft: Any
) -> Path:
    """A whole adapter with its manifest, renamed into place as training does it."""
    adapter_id = new_adapter_id()
    partial = write_peft_adapter(adapters_dir / f".partial-{adapter_id}", base, **peft)
    content = {
        "manifest_version": 1,
        "id": adapter_id,
        "name": fine_tuned_model_name(base.name, "org", "test"),
        "created_at": 1_764_000_000,
        "base_model": base.name,
        "base_model_sha256": base.sha256,
        "files": {
            file.name: {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
            for file in partial.iterdir()
        },
    }
    (partial / "manifest.json").write_text(json.dumps({**content, **(manifest or {})}))
    return partial.rename(adapters_dir / adapter_id)


def _linear_layers(base_dir: Path) -> dict[str, tuple[int, int]]:
    """Module name → (out_features, in_features) of q_proj and down_proj in every layer."""
    from safetensors import safe_open

    with safe_open(base_dir / "model.safetensors", "np") as weights:
        return {
            name.removesuffix(".weight"): tuple(weights.get_slice(name).get_shape())
            for name in sorted(weights.keys())
            if name.endswith(("q_proj.weight", "down_proj.weight"))
        }
