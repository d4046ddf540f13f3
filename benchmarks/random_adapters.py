"""Makes adapters of random numbers, for measurements of speed alone: they are loaded and computed like trained ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from adapter_format.names import fine_tuned_model_name, new_adapter_id
from serving import BaseModel


def random_adapter(adapters_dir: Path, base: BaseModel, r: int, seed: int) -> str:
    """The model name of a new adapter on every linear layer of each block, put in place as training does it."""
    adapter_id = new_adapter_id()
    partial = adapters_dir / f".partial-{adapter_id}"
    partial.mkdir(parents=True)
    numbers, tensors, modules = np.random.default_rng(seed), {}, set()
    for module, (rows, columns) in linear_layers(base.path).items():
        for letter, shape in (("A", (r, columns)), ("B", (rows, r))):
            weights = numbers.standard_normal(shape, np.float32) * np.float32(0.01)
            tensors[f"base_model.model.{module}.lora_{letter}.weight"] = weights
        modules.add(module.rsplit(".", 1)[1])
    save_file(tensors, partial / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "r": r, "lora_alpha": 2 * r, "target_modules": sorted(modules), "bias": "none"}
    (partial / "adapter_config.json").write_text(json.dumps(config))
    name = fine_tuned_model_name(base.name, "bench", f"random-{seed}")
    manifest = {
        "manifest_version": 1,
        "id": adapter_id,
        "name": name,
        "created_at": 1_764_000_000 + seed,
        "base_model": base.name,
        "base_model_sha256": base.sha256,
        "files": {
            file.name: {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
            for file in partial.iterdir()
        },
    }
    (partial / "manifest.json").write_text(json.dumps(manifest))
    partial.rename(adapters_dir / adapter_id)
    return name


def linear_layers(base_dir: Path) -> dict[str, tuple[int, int]]:
    """Module → (rows, columns) of each projection in the blocks."""
    found: dict[str, tuple[int, int]] = {}
    for file in sorted(base_dir.glob("*.safetensors")):
        with safe_open(file, "numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                if name.endswith("_proj.weight"):
                    rows, columns = tensors.get_slice(name).get_shape()
                    found[name.removesuffix(".weight")] = (rows, columns)
    return found
