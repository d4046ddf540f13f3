"""Contradictory settings: each is valid alone, but not in combination. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from training.config.config import TrainingConfig

Refusal = tuple[str, str]
"""(setting at fault, sentence with the rule and the remedy)"""

_ONLY_FOR_LORA = (
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "exclude_modules",
    "modules_to_save",
    "init_lora_weights",
    "lora_dropout",
)
_ONLY_FOR_METHOD = {
    "beta": ("dpo", "kto"),
    "loss_type": ("dpo",),
    "label_smoothing": ("dpo",),
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
    "packing": ("supervised", "text"),
    "train_on": ("supervised",),
    "mix_file": ("supervised", "text"),
}


def find_contradictions(config: TrainingConfig) -> list[Refusal]:
    """Return every contradiction in `config`, with the setting that is best changed; empty if there is none."""
    return [
        *_check_method(config),
        *_check_finetuning_type(config),
        *find_full_contradictions(config),
        *_check_preferences(config),
        *_check_files(config),
    ]


def is_changed(config: TrainingConfig, name: str) -> bool:
    """Return whether the setting `name` differs from its default."""
    (field,) = [field for field in dataclasses.fields(config) if field.name == name]
    return bool(getattr(config, name) != field.default)


def _check_method(config: TrainingConfig) -> Iterator[Refusal]:
    for name, methods in _ONLY_FOR_METHOD.items():
        if is_changed(config, name) and config.method not in methods:
            yield (
                name,
                f"`{name}` is {getattr(config, name)!r}, but has no effect with `method: {config.method}`: it is "
                f"for {' and '.join(methods)}. Leave it out, or change `method`.",
            )
    if config.method == "text" and config.on_too_long == "refuse":
        yield (
            "on_too_long",
            "`on_too_long` is 'refuse', but `method: text` cuts long texts into rows of `max_length`. Leave it out.",
        )


def _check_finetuning_type(config: TrainingConfig) -> Iterator[Refusal]:
    kind = config.finetuning_type
    for name in _ONLY_FOR_LORA:
        if is_changed(config, name) and kind != "lora":
            yield (
                name,
                f"`{name}` is {getattr(config, name)!r}, but only `finetuning_type: lora` supports it, not {kind}. "
                "Leave it out, or set `finetuning_type: lora`.",
            )
    if is_changed(config, "encoder_hidden_size") and kind not in ("prefix_tuning", "p_tuning"):
        yield (
            "encoder_hidden_size",
            f"`encoder_hidden_size` is {config.encoder_hidden_size}, but `finetuning_type: {kind}` doesn't use it. "
            "Leave it out.",
        )
    if kind == "prefix_tuning" and config.gradient_checkpointing is True:
        yield (
            "gradient_checkpointing",
            "`gradient_checkpointing` is true, but drops the cache that `prefix_tuning` needs. Set it to false, or "
            "use `p_tuning`.",
        )
    if kind == "p_tuning" and config.from_adapter:
        yield (
            "from_adapter",
            "`from_adapter` is set, but P-tuning only saves the vectors, not the network that generates them. "
            "Leave it out, or use `finetuning_type: lora`.",
        )


def find_full_contradictions(config: TrainingConfig) -> Iterator[Refusal]:
    """Yield what contradicts `finetuning_type: full`."""
    if config.finetuning_type != "full":
        return
    if config.quantization != "none":
        yield (
            "quantization",
            f"`quantization` is {config.quantization!r}, but 4-bit weights can't be trained, and `finetuning_type: "
            "full` trains all weights. Set `quantization: none`, or `finetuning_type: lora`.",
        )
    if config.from_adapter:
        yield (
            "from_adapter",
            "`from_adapter` is set, but `finetuning_type: full` doesn't train an adapter. Merge it into the base "
            "model first and use the merged model as `base_model`, or set `finetuning_type: lora`.",
        )


def _check_preferences(config: TrainingConfig) -> Iterator[Refusal]:
    if config.method == "dpo" and config.label_smoothing > 0 and config.loss_type != "robust":
        yield (
            "label_smoothing",
            f"`label_smoothing` is {config.label_smoothing}, but `loss_type: {config.loss_type}` assumes that every "
            "label is right. Set `loss_type: robust`, or leave it out.",
        )
    if config.method == "kto" and config.batch_size == 1:
        yield (
            "batch_size",
            "`batch_size` is 1, but KTO compares each answer with another one in its batch. Set it to 2 or more.",
        )
    if config.early_stopping_patience and not (config.validation_file or config.validation_fraction):
        yield (
            "early_stopping_patience",
            f"`early_stopping_patience` is {config.early_stopping_patience}, but there is no validation: "
            "`validation_fraction` is 0 and `validation_file` isn't set. Set one of them.",
        )


def _check_files(config: TrainingConfig) -> Iterator[Refusal]:
    """Check for the same file in two places: the measurement would be on training data."""
    seen = {Path(config.training_file).resolve(): "training_file"}
    for name in ("validation_file", "mix_file"):
        path = getattr(config, name)
        if path is None:
            continue
        other = seen.setdefault(Path(path).resolve(), name)
        if other != name:
            yield name, f"`{name}` is {path}, the same file as `{other}`. Use another file, or leave it out."
