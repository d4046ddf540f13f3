"""Checks whether an adapter's tensors fit the base model: names, pairs, shapes, finite numbers.

An engine silently loads an adapter made for a model of another width or depth, and generates nonsense.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapter_format.hashing import weight_files
from serving.adapters.config import EMBEDDINGS, MERGE, rank_of
from serving.adapters.safetensors import Excess, SafetensorsError, Tensor, find_excess, read_header
from serving.base_model import BaseModel
from serving.errors import AdapterError, BaseModelError, quote

_PREFIX = "base_model.model."
"""PEFT's prefix of the base's own module names."""
_FLOATS = frozenset({"F32", "F16", "BF16"})
MAX_HEADER_BYTES = 32 * 2**20
"""Bound on the header of an adapter's file; one on every layer of a model with 512 experts has some 10 MB."""
_OTHER_METHODS = {
    ".modules_to_save.": "full weights trained in addition (modules_to_save); train without them",
    ".lora_magnitude_vector": "of DoRA, which the engine can't serve; train with use_dora=false",
    ".lora_embedding_": "of an adapted embedding, which the engine can't serve; train without it",
    ".lora_bias": "a bias, which the engine can't serve; train with lora_bias=false",
    ".trainable_tokens_": "of trained tokens, which the engine can't serve; train without trainable_token_indices",
}
"""Part of the name of a tensor that PEFT writes for something other than plain LoRA → what that is."""

Features = tuple[int, int]
"""(out_features, in_features) of a linear layer."""


def check_tensors(weights: Path, config: dict[str, Any], base: BaseModel) -> None:
    """Raise AdapterError naming the tensor at fault and the remedy, unless the file `weights` fits `base`."""
    name = weights.parent.name
    try:
        tensors = read_header(weights, max_bytes=MAX_HEADER_BYTES)
        pairs = _pair_tensors(name, tensors)
        _check_pairs(name, pairs, config, base)
        found = find_excess(weights, tensors)
    except SafetensorsError as error:
        raise AdapterError(
            f"{name}: {weights.name} isn't a valid safetensors file: {error}. Copy it again, or save the adapter again."
        ) from error
    if found:
        raise AdapterError(f"{name}: {_explain_excess(found)}")


def _explain_excess(found: Excess) -> str:
    if found.is_finite:
        return (
            f"{quote(found.tensor)} has values beyond ±65504, which can overflow in the engine. The training "
            "diverged, or the file is damaged: copy it again, or train with a lower learning_rate."
        )
    return (
        f"{quote(found.tensor)} has infinite or NaN values, which would also break other models' answers. The "
        "training diverged: train again with a lower learning_rate."
    )


def read_base_features(base: BaseModel) -> dict[str, Features | None]:
    """Return module name → (out_features, in_features) for every layer; None where its weights are packed.

    Raises: BaseModelError when the base's weights can't be read.
    """
    features: dict[str, Features | None] = {}
    for file in weight_files(base.path):
        try:
            tensors = read_header(file)
        except (SafetensorsError, OSError) as error:
            raise BaseModelError(
                f"The base model's {file.name} can't be read: {error}. Download the model again."
            ) from error
        for tensor_name, tensor in tensors.items():
            module, _, leaf = tensor_name.rpartition(".")
            if leaf == "weight" and len(tensor.shape) == 2 and tensor.dtype in _FLOATS:
                features[module] = (tensor.shape[0], tensor.shape[1])
            elif len(tensor.shape) > 1 or tensor.dtype not in _FLOATS:  # else a norm or a bias
                features.setdefault(module, None)
    return features


def _pair_tensors(name: str, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return module name → its tensors `A` and `B`. Raises: AdapterError for any other tensor."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for tensor_name, tensor in tensors.items():
        module, _, leaf = tensor_name.removeprefix(_PREFIX).rpartition(".lora_")
        side = leaf.removesuffix(".weight")
        if not tensor_name.startswith(_PREFIX) or side not in ("A", "B") or not leaf.endswith(".weight"):
            raise AdapterError(f"{name}: {quote(tensor_name)} {_explain_not_lora(tensor_name)}")
        if module.rsplit(".", 1)[-1] in EMBEDDINGS:
            raise AdapterError(
                f"{name}: {quote(tensor_name)} adapts an embedding, which the engine doesn't support. Train "
                f"without it, {MERGE}."
            )
        if len(tensor.shape) != 2 or tensor.dtype not in _FLOATS:
            raise AdapterError(
                f"{name}: {quote(tensor_name)} is {quote(tensor.dtype)} {list(tensor.shape)}, but must be a matrix of "
                f"{', '.join(sorted(_FLOATS))}. Save the adapter again."
            )
        pairs.setdefault(module, {})[side] = tensor
    if not pairs:
        raise AdapterError(f"{name} has no tensors, so it has no effect. Save the adapter again.")
    return pairs


def _explain_not_lora(tensor_name: str) -> str:
    """Return why an engine can't serve this tensor, and the remedy."""
    for part, what in _OTHER_METHODS.items():
        if part in tensor_name:
            return f"is {what}, {MERGE}."
    module, _, leaf = tensor_name.rpartition(".")
    if module.rsplit(".", 1)[-1] in EMBEDDINGS:
        return (
            "is the full weight of an embedding, as PEFT saves it when tokens were added. The engine only supports "
            f"low-rank weights: train with the base model's own tokens, {MERGE}."
        )
    if leaf == "bias":
        return f"is a bias, which the engine can't serve. Train with bias='none', {MERGE}."
    return (
        f"isn't a LoRA tensor ({_PREFIX}….lora_A.weight or lora_B.weight). Train LoRA on linear layers only, and "
        "save it with PEFT's save_pretrained."
    )


def _check_pairs(name: str, pairs: Mapping[str, Mapping[str, Tensor]], config: dict[str, Any], base: BaseModel) -> None:
    known = read_base_features(base)
    for module, pair in pairs.items():
        if len(pair) != 2:
            raise AdapterError(
                f"{name}: {quote(module)} has lora_{next(iter(pair))} but not the other half of the pair. Save the "
                "adapter again."
            )
        _check_target(name, module, config)
        expected = _find_features(module, known, name, base)
        _check_rank(f"{name}: {quote(module)}", pair, rank_of(config, module))
        if config.get("fan_in_fan_out") and expected:
            expected = (expected[1], expected[0])
        features = (pair["B"].shape[0], pair["A"].shape[1])
        if expected and expected != features:
            raise AdapterError(
                f"{name}: {quote(module)} maps {features[1]} features to {features[0]}, but in {base.name!r} it "
                f"maps {expected[1]} to {expected[0]}. It was trained on another base model: serve it there, or "
                "train it again."
            )
    if len(pairs) > len(known):
        raise AdapterError(
            f"{name}: it adapts {len(pairs)} modules, but {base.name!r} has only {len(known)} layers, so some are "
            "duplicates. Save it again with PEFT's save_pretrained."
        )


def _check_target(name: str, module: str, config: Mapping[str, Any]) -> None:
    """Raise AdapterError when a list of targets lacks the module: PEFT would skip it, and vLLM serve it."""
    targets = config["target_modules"]
    if isinstance(targets, list) and not any(f".{module}".endswith(f".{target}") for target in targets):
        raise AdapterError(
            f"{name}: it has tensors for {quote(module)}, which target_modules doesn't include. The config and the "
            "tensors are from different adapters: save it again."
        )


def _check_rank(module: str, pair: Mapping[str, Tensor], expected: int) -> None:
    rank, rank_of_b = pair["A"].shape[0], pair["B"].shape[1]
    if rank != rank_of_b or rank != expected:
        raise AdapterError(
            f"{module} has rank {rank} in lora_A and {rank_of_b} in lora_B, but adapter_config.json says "
            f"{expected}. They are from different adapters: save it again."
        )


def _find_features(module: str, features: Mapping[str, Features | None], name: str, base: BaseModel) -> Features | None:
    """Return the base's features of `module`; None if unknown. Raises: AdapterError when the base lacks the module."""
    if module in features:
        return features[module]
    # Models with several towers name a module one way in memory and another on disk; the layer's path is the same.
    tail = module[module.find("layers.") :] if "layers." in module else module
    alike = [found for known, found in features.items() if known.endswith("." + tail)]
    if len(alike) == 1:
        return alike[0]
    raise AdapterError(
        f"{name}: it adapts {quote(module)}, but {base.name!r} has no such layer. It was trained on another base "
        "model: serve it there, or train it again."
    )
