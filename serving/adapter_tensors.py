"""Whether an adapter's tensors fit the base model: names, pairs, shapes, finite numbers.

An engine loads an adapter made for a model of another width or depth without a word, and answers nonsense.
It refuses to know manifests and hashes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.adapter_config import EMBEDDINGS, allowed_ranks
from serving.base_model import BaseModel, weight_files
from serving.errors import AdapterError, BaseModelError
from serving.safetensors_file import SafetensorsError, Tensor, non_finite_tensor, read_header

_PREFIX = "base_model.model."
"""What PEFT puts before the base's own module names."""
_FLOATS = frozenset({"F32", "F16", "BF16"})

Features = tuple[int, int]
"""(out_features, in_features) of a linear layer."""


def check_tensors(weights: Path, config: dict[str, Any], base: BaseModel) -> None:
    """Raises AdapterError naming the tensor at fault and the remedy, unless the file `weights` fits `base`."""
    name = weights.parent.name
    try:
        tensors = read_header(weights)
        pairs = _pairs(name, tensors)
        _check_pairs(name, pairs, config, base)
        damaged = non_finite_tensor(weights, tensors)
    except SafetensorsError as error:
        raise AdapterError(
            f"{name}: {weights.name} isn't a sound safetensors file: {error}. Copy it again, or save the adapter again."
        ) from error
    if damaged:
        raise AdapterError(
            f"{name}: {damaged} holds infinities or NaNs, which would spoil other models' answers too. "
            "Its training diverged: train again with a lower learning_rate."
        )


def base_features(base: BaseModel) -> dict[str, Features | None]:
    """Module name → (out_features, in_features) for every module with weights; None where they are packed.

    Raises: BaseModelError when the base's weights can't be read.
    """
    features: dict[str, Features | None] = {}
    for file in weight_files(base.path):
        try:
            tensors = read_header(file)
        except (SafetensorsError, OSError) as error:
            raise BaseModelError(
                f"The base model's {file.name} can't be read: {error}. Fetch the model again."
            ) from error
        for tensor_name, tensor in tensors.items():
            module, _, leaf = tensor_name.rpartition(".")
            whole = leaf == "weight" and len(tensor.shape) == 2 and tensor.dtype in _FLOATS
            if whole:
                features[module] = (tensor.shape[0], tensor.shape[1])
            else:
                features.setdefault(module, None)
    return features


def _pairs(name: str, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Module name → its tensors `A` and `B`. Raises: AdapterError for any other tensor."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for tensor_name, tensor in tensors.items():
        module, _, leaf = tensor_name.removeprefix(_PREFIX).rpartition(".lora_")
        side = leaf.removesuffix(".weight")
        if not tensor_name.startswith(_PREFIX) or side not in ("A", "B") or not leaf.endswith(".weight"):
            raise AdapterError(
                f"{name}: {tensor_name} isn't a LoRA tensor ({_PREFIX}….lora_A.weight or lora_B.weight). "
                "Train LoRA on linear layers alone, and save with PEFT's save_pretrained."
            )
        if module.rsplit(".", 1)[-1] in EMBEDDINGS:
            raise AdapterError(f"{name}: {tensor_name} adapts an embedding, which the engine can't. Train without it.")
        if len(tensor.shape) != 2 or tensor.dtype not in _FLOATS:
            raise AdapterError(
                f"{name}: {tensor_name} is {tensor.dtype} {list(tensor.shape)}, but must be a matrix of "
                f"{', '.join(sorted(_FLOATS))}. Save the adapter again."
            )
        pairs.setdefault(module, {})[side] = tensor
    if not pairs:
        raise AdapterError(f"{name} holds no tensors, so it changes nothing. Save the adapter again.")
    return pairs


def _check_pairs(name: str, pairs: Mapping[str, Mapping[str, Tensor]], config: dict[str, Any], base: BaseModel) -> None:
    known = base_features(base)
    for module, pair in pairs.items():
        if len(pair) != 2:
            raise AdapterError(
                f"{name}: {module} has lora_{next(iter(pair))} but not the other half of the pair. Save it again."
            )
        _check_rank(f"{name}: {module}", pair, allowed_ranks(config))
        expected = _features_of(module, known, name, base)
        if config.get("fan_in_fan_out") and expected:
            expected = (expected[1], expected[0])
        features = (pair["B"].shape[0], pair["A"].shape[1])
        if expected and expected != features:
            raise AdapterError(
                f"{name}: {module} maps {features[1]} features to {features[0]}, but in {base.name!r} it maps "
                f"{expected[1]} to {expected[0]}. It was made for another base: serve it there, or train it again."
            )


def _check_rank(module: str, pair: Mapping[str, Tensor], allowed: set[int]) -> None:
    rank, rank_of_b = pair["A"].shape[0], pair["B"].shape[1]
    if rank != rank_of_b or rank not in allowed:
        raise AdapterError(
            f"{module} has rank {rank} in lora_A and {rank_of_b} in lora_B, but adapter_config.json says "
            f"{' or '.join(map(str, sorted(allowed)))}. They belong to different adapters: save it again."
        )


def _features_of(module: str, features: Mapping[str, Features | None], name: str, base: BaseModel) -> Features | None:
    """The base's features of `module`; None where they can't be known. Raises: AdapterError when it isn't there."""
    if module in features:
        return features[module]
    # Models with several towers name a module one way in memory and another on disk; the layer's path is the same.
    tail = module[module.find("layers.") :] if "layers." in module else module
    alike = [found for known, found in features.items() if known.endswith("." + tail)]
    if len(alike) == 1:
        return alike[0]
    raise AdapterError(
        f"{name}: it adapts {module}, which {base.name!r} doesn't have. "
        "It was made for another base model: serve it there, or train it again."
    )
