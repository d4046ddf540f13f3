"""Whole models from a fine-tuning run: an adapter merged into its base, or a model that was trained whole.

A merge is verified: the written model is loaded again, and must answer like base and adapter.
"""

from __future__ import annotations

import gc
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from adapter_format.files import WEIGHTS_FILE
from adapter_format.hashing import base_model_sha256, file_sha256, weight_files
from adapter_format.manifest import Manifest
from training.model.adapter_dir import (
    AdapterWriteError,
    fingerprint,
    is_for_other_base,
    move_into_place,
    temporary_adapter_dir,
)
from training.model.base import DTYPES, Base
from training.model.existing_adapter import PEFT_TYPES, apply_adapter, read_adapter_config

BOUNDS: Mapping[torch.dtype, float] = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 5e-2}
"""Maximum mean divergence, in nats per token, of a merged model from base and adapter. Mostly the rounding of the sum
of two weights to 8 or 11 bits; see `Parity`."""
PROBES, PROBE_TOKENS = 4, 32
_NOT_COPIED = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".py", ".md"}
_OWN = {"config.json", "manifest.json"}
"""Files that a merged model has of its own."""


class ExportError(Exception):
    """The requested export is impossible; nothing was put in place."""


class ParityError(ExportError):
    """The merged model doesn't answer like base and adapter."""


@dataclass(frozen=True)
class Parity:
    """Divergence of a merged model from base and adapter, on probe tokens: Kullback-Leibler divergences per token."""

    divergence: float
    """Of the merged model, from base and adapter, in nats."""
    effect: float
    """Of the bare base, from base and adapter: the adapter's effect."""
    bound: float
    """The bound on `divergence`."""
    dtype: str
    """Of the merged weights."""


def merge(base_dir: Path, adapter_dir: Path, output_dir: Path, dtype: str = "auto") -> Parity:
    """Write `output_dir`, a model that is `base_dir` with the adapter merged in; transformers and vLLM can load it.

    Args:
        dtype: float32, bfloat16 or float16; `auto` is the base's stored dtype.

    Raises:
        ExportError: one of them can't be read, or they don't belong together.
        ParityError: the merged model answers differently.
        AdapterWriteError: `output_dir` was created in the meantime.
    """
    if output_dir.exists():
        raise ExportError(f"{output_dir} already exists, and nothing is overwritten. Choose a new folder.")
    with temporary_adapter_dir(output_dir) as partial:
        parity = write_merged(base_dir, adapter_dir, partial, dtype)
        manifest: Manifest = {
            "base_model_sha256": base_model_sha256(base_dir),
            "adapter_sha256": file_sha256(adapter_dir / WEIGHTS_FILE),
            "parity": asdict(parity),
        }
        move_into_place(partial, output_dir, manifest)
    return parity


def save_model(base: Base, directory: Path) -> Parity | None:
    """Write the trained weights as a whole model into the empty `directory`, in the base's stored dtype.

    An adapter is merged into the base as stored, not as quantised to 4 bit; the divergence from base and adapter is
    returned. A model that was trained whole (None is returned) has the written, rounded values afterwards.

    Raises:
        AdapterWriteError: nothing was learned, or values aren't finite.
        ExportError: this type of adapter can't be merged.
        ParityError: the merged model answers differently.
    """
    if fingerprint(base.model) == base.start:
        raise AdapterWriteError("Nothing was learned. Raise `learning_rate` or train for more steps.")
    if base.kind == "full":
        _save_whole(base, directory)
        return None
    temporary = directory / ".adapter"
    base.model.save_pretrained(str(temporary), safe_serialization=True, save_embedding_layers=False)
    parity = write_merged(base.folder, temporary, directory)
    shutil.rmtree(temporary)
    return parity


def write_merged(base_dir: Path, adapter_dir: Path, directory: Path, dtype: str = "auto") -> Parity:
    """Like `merge`, into an existing `directory`, without a manifest."""
    adapted = _load_adapted(base_dir, adapter_dir, dtype)
    probes = _make_probes(adapted)
    wanted = _compute_log_probabilities(adapted, probes)
    with adapted.disable_adapter():
        effect = _mean_divergence(wanted, _compute_log_probabilities(adapted, probes))
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ExportError(f"The adapter in {adapter_dir} can't be merged: {error}") from error
    held = next(merged.parameters()).dtype
    _write_model(merged, base_dir, directory)
    del adapted, merged  # so that only one model is in memory at a time
    gc.collect()
    reloaded = _load_model(directory, "auto")
    divergence = _mean_divergence(wanted, _compute_log_probabilities(reloaded, probes))
    parity = Parity(divergence, effect, BOUNDS[held], str(held).removeprefix("torch."))
    _check_parity(parity)
    return parity


def _load_adapted(base_dir: Path, adapter_dir: Path, dtype: str) -> PeftModel:
    try:
        config = read_adapter_config(adapter_dir)
        kind = getattr(config.peft_type, "value", config.peft_type)
        if kind != PEFT_TYPES["lora"]:
            raise ValueError(f"its type is {kind}, which doesn't change weights; only LoRA can be merged")
        if is_for_other_base(adapter_dir, base_dir):
            raise ValueError(
                f"it was trained on a base model with different weights (by their hash) than those in {base_dir}"
            )
        return apply_adapter(_load_model(base_dir, dtype), adapter_dir, config, is_trainable=False).eval()
    except ValueError as error:
        raise ExportError(f"The adapter in {adapter_dir} can't be merged: {error}.") from error


def _load_model(directory: Path, dtype: str) -> Any:
    try:
        if getattr(AutoConfig.from_pretrained(directory, local_files_only=True), "quantization_config", None):
            raise ValueError("it is quantized, and adapters can't be merged into quantized weights.")
        return AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=DTYPES.get(dtype, "auto"),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        ).eval()
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ExportError(
            f"The base model in {directory} can't be used: {error} Use a folder with config.json and "
            "safetensors weights."
        ) from error


def _write_model(model: Any, base_dir: Path, directory: Path) -> None:
    """Write the model, and the base's files except weights and code: tokenizer, chat template, generation settings."""
    output, given = model.get_output_embeddings(), model.get_input_embeddings()
    if model.config.tie_word_embeddings and output is not None and output.weight is not given.weight:
        model.config.tie_word_embeddings = False  # one of the two was trained separately
    model.config.use_cache = True
    model.save_pretrained(str(directory), safe_serialization=True)
    for file in base_dir.iterdir():
        is_index = file.name.endswith(".index.json")
        if file.is_file() and file.suffix not in _NOT_COPIED and not is_index and file.name not in _OWN:
            shutil.copyfile(file, directory / file.name)


def _save_whole(base: Base, directory: Path) -> None:
    for name, parameter in base.model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise AdapterWriteError(
                f"{name} has values that aren't finite: the training diverged. Lower `learning_rate`, or raise "
                "`warmup_ratio`."
            )
    _convert(base.model, stored_dtype(base.folder))
    _write_model(base.model, base.folder, directory)
    _convert(base.model, torch.float32)


def _convert(model: Any, dtype: torch.dtype) -> None:
    """Convert weights only: buffers, such as the frequencies of rotary positions, must keep their precision."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def stored_dtype(directory: Path) -> torch.dtype:
    """Return the stored dtype of the weights of the model in `directory`: that of most of them."""
    counts: dict[str, int] = {}
    for path in weight_files(directory):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 — it's no dictionary
                piece = file.get_slice(name)
                counts[piece.get_dtype()] = counts.get(piece.get_dtype(), 0) + math.prod(piece.get_shape())
    names = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    return names.get(max(counts, key=lambda name: counts[name]), torch.bfloat16)


def _make_probes(model: Any) -> torch.Tensor:
    """Return int64 [PROBES, PROBE_TOKENS]: always the same tokens, from all over the vocabulary."""
    chance = torch.Generator().manual_seed(0)
    return torch.randint(0, model.get_input_embeddings().num_embeddings, (PROBES, PROBE_TOKENS), generator=chance)


@torch.no_grad()
def _compute_log_probabilities(model: Any, probes: torch.Tensor) -> torch.Tensor:
    """Return float32 [PROBES, PROBE_TOKENS, vocabulary]."""
    logits = model(input_ids=probes, attention_mask=torch.ones_like(probes), use_cache=False).logits
    return torch.log_softmax(logits.float(), -1)


def _mean_divergence(wanted: torch.Tensor, found: torch.Tensor) -> float:
    return max(0.0, float((wanted.exp() * (wanted - found)).sum(-1).mean()))  # rounding may make it negative


def _check_parity(parity: Parity) -> None:
    gap = f"differs from the base model with the adapter by {parity.divergence:.2g} nats per token"
    if not parity.divergence <= parity.bound:
        raise ParityError(
            f"The merged model {gap}, more than the {parity.bound:g} that rounding to {parity.dtype} can explain. "
            "Serve the adapter with its base model, or merge with `dtype` float32."
        )
    if parity.divergence > max(parity.effect, 1e-6):
        raise ParityError(
            f"The merged model {gap}, and the base model alone by {parity.effect:.2g}: rounding to {parity.dtype} "
            "lost what the adapter learned. Train it longer, or merge with `dtype` float32."
        )
