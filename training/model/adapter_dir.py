"""Writes the adapter directory: in a temporary folder, checked, with a manifest, then renamed into place."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file

from adapter_format.disk import sync
from adapter_format.files import MANIFEST_FILE, WEIGHTS_FILE
from adapter_format.hashing import base_model_sha256, file_sha256
from adapter_format.manifest import MANIFEST_VERSION, Manifest, to_readable_json

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


class AdapterWriteError(Exception):
    """The trained adapter is unusable or can't be written; nothing was put in place."""


def is_for_other_base(adapter_dir: Path, base_dir: Path) -> bool:
    """Return whether the adapter's manifest names other weights than those in `base_dir`; False without a manifest.

    Raises:
        ValueError: the manifest can't be read.
    """
    try:
        manifest = json.loads((adapter_dir / MANIFEST_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise ValueError(f"its manifest.json can't be read: {error}") from error
    made_for = manifest.get("base_model_sha256") if isinstance(manifest, dict) else None
    return bool(made_for) and made_for != base_model_sha256(base_dir)


@contextmanager
def temporary_adapter_dir(output_dir: Path) -> Iterator[Path]:
    """Create a folder beside `output_dir` to build the adapter in; it is removed unless it has been moved into place.

    It is on the same filesystem, so that moving it is one rename: readers see a complete adapter or none.
    """
    partial = output_dir.with_name(f".partial-{output_dir.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fingerprint(model: Any) -> str:
    """Hash the first 65,536 values of every trained weight; training changes some of them, whatever the method."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            values = parameter.detach().flatten()[:65536].float().cpu().contiguous()
            digest.update(name.encode() + values.numpy().tobytes())
    return digest.hexdigest()


def save_adapter(model: Any, directory: Path, start: str | None = None) -> None:
    """Write the adapter of the PEFT `model` into `directory`, and check what was written.

    For prefix and P-tuning the vectors are written, not the network that generated them.

    Args:
        start: the `fingerprint` before training.

    Raises:
        AdapterWriteError: the weights aren't finite, or the adapter learned nothing.
    """
    if start is not None and fingerprint(model) == start:
        raise AdapterWriteError(
            "The weights didn't change in training: nothing was learned. Raise `learning_rate` or train for more steps."
        )
    model.save_pretrained(str(directory), safe_serialization=True, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)  # PEFT's template, not filled in
    check_weights(load_file(directory / WEIGHTS_FILE))


def reload_adapter(model: Any, directory: Path) -> None:
    """Load the adapter in `directory` into the PEFT `model` that it came from, as a server would load it.

    After that the vectors of prefix and P-tuning are fixed: the network that generated them is gone.
    """
    weights = load_peft_weights(str(directory), device="cpu")
    config = model.active_peft_config
    if not config.is_prompt_learning:
        set_peft_model_state_dict(model, weights)
        return
    encoder = model.prompt_encoder[model.active_adapter]
    vectors = weights["prompt_embeddings"].to(encoder.embedding.weight)
    encoder.embedding = torch.nn.Embedding(vectors.shape[0], vectors.shape[1], _weight=vectors)
    encoder.embedding.requires_grad_(False)
    config.inference_mode = True


def check_weights(weights: Mapping[str, torch.Tensor]) -> None:
    """Raise `AdapterWriteError` when `weights` aren't those of an adapter that learned something."""
    for name, values in weights.items():
        if not torch.isfinite(values).all():
            raise AdapterWriteError(
                f"{name} has values that aren't finite: the training diverged. Lower `learning_rate`, or raise "
                "`warmup_ratio`."
            )
        if "lora_A" in name and name.replace("lora_A", "lora_B") not in weights:
            raise AdapterWriteError(f"{name} has no matching lora_B: the adapter is incomplete. Train it again.")
    seconds = [values for name, values in weights.items() if "lora_B" in name]
    if seconds and not any(values.any() for values in seconds):
        raise AdapterWriteError(
            "Every lora_B is zero: the adapter learned nothing. Raise `learning_rate` or train for more steps."
        )


def move_into_place(partial: Path, output_dir: Path, manifest: Manifest) -> None:
    """Add the manifest, make everything durable, and rename `partial` to `output_dir`.

    Raises:
        AdapterWriteError: `output_dir` was created in the meantime.
    """
    files = {
        file.name: {"sha256": file_sha256(file), "bytes": file.stat().st_size}
        for file in sorted(partial.iterdir())
        if file.is_file()
    }
    content = {
        "manifest_version": MANIFEST_VERSION,
        "id": output_dir.name,
        "created_at": int(time.time()),
        **manifest,
        "files": files,
        "versions": {package: version(package) for package in PACKAGES},
    }
    (partial / MANIFEST_FILE).write_text(to_readable_json(content), encoding="utf-8")
    for file in partial.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read
        sync(file)
    sync(partial)
    if output_dir.exists():
        raise AdapterWriteError(
            f"{output_dir} was created during the run, and adapters are never overwritten. Choose another `output_dir`."
        )
    partial.rename(output_dir)
    sync(output_dir.parent)
