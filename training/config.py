"""Every knob of a fine-tune, with its unit, default and trade-off. Knows the rules of each value; imports no torch."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from training.config_rules import fault, looks_like_path, unknown

Quantization = Literal["nf4", "none"]
ComputeDtype = Literal["auto", "float32", "bfloat16", "float16"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]


class ConfigError(ValueError):
    """A configuration that breaks one rule or several, all of them told at once."""

    def __init__(self, faults: Sequence[str], *, param: str | None = None) -> None:
        self.faults = tuple(faults)
        """One sentence for each fault."""
        self.param = param
        """The first setting at fault, where it is a setting."""
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One fine-tune. Built with wrong values it raises `ConfigError`, which names every fault at once."""

    base_model: str
    """The model that the adapter is for: a local folder, or a Hugging Face hub id such as `Qwen/Qwen3-0.6B`."""
    training_file: str
    """The examples: OpenAI chat JSONL, Alpaca JSON or JSONL, or prompt/completion JSONL; the format is detected."""
    output_dir: str
    """The adapter directory to make. Its parent is the adapters directory; it must not exist yet."""
    base_model_name: str | None = None
    """The name that the base model is served under. Default: the hub id, or the folder's name."""
    fine_tuned_model: str | None = None
    """The name that clients will put in `model`: `ft:{base}:{org}:{suffix}:{8 characters}`. Default: one is made up."""
    validation_file: str | None = None
    """Examples that are measured, not trained on. Default: `validation_fraction` of the training file."""
    validation_fraction: float = 0.1
    """Share of the training file, 0 to 0.5, held back when there's no `validation_file`. 0: nothing is measured."""
    n_epochs: int = 3
    """Passes over the training file. More learns the examples closer, and in the end by heart."""
    max_steps: int | None = None
    """Stop after so many optimizer steps, whatever `n_epochs` says. Default: no such limit."""
    batch_size: int = 8
    """Examples in one forward pass. Larger is faster on a GPU and needs more memory."""
    gradient_accumulation_steps: int = 1
    """Forward passes per optimizer step: a larger batch for the same memory, at the price of time."""
    learning_rate: float = 2e-4
    """Peak step size of AdamW. Too high diverges, too low learns nothing; small models want more."""
    lr_scheduler_type: Scheduler = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_ratio: float = 0.05
    """Share of the steps, 0 to 1, over which the learning rate rises from zero. Guards the first steps."""
    weight_decay: float = 0.0
    """Pull of the adapter's weights towards zero, 0 or more. A little helps against learning by heart."""
    max_grad_norm: float = 1.0
    """Longest gradient that is let through, above 0; a longer one is shortened. Guards against single bad batches."""
    r: int = 16
    """Rank of the adapter, 1 to 512. More learns more, for memory and serving speed; the engine must allow it."""
    lora_alpha: int = 32
    """Strength of the adapter: its output is scaled by `lora_alpha / r`. Twice `r` is usual."""
    lora_dropout: float = 0.0
    """Share, 0 up to 1, of the adapter's inputs that is dropped in training. Helps with little data; slows learning."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Layers that get an adapter: `all-linear`, or a list such as `[q_proj, v_proj]`. Fewer learns less."""
    quantization: Quantization = "nf4"
    """How the frozen base is held: `nf4` in 4 bit (QLoRA: a quarter of the memory) or `none` (LoRA: faster)."""
    double_quant: bool = True
    """Quantise the scales of `nf4` too: 0.4 bit per weight less, at no cost that was ever measured."""
    compute_dtype: ComputeDtype = "auto"
    """What the arithmetic is done in. `auto`: bfloat16 where the CPU or GPU has instructions for it, else float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: a third slower, and far less memory with long examples."""
    max_length: int = 2048
    """Longest example in tokens, at least 8; what goes beyond is cut off at the end."""
    seed: int = 42
    """Seed for shuffling, splitting and the adapter's first weights. Same seed, same machine: same adapter."""
    logging_steps: int = 1
    """Optimizer steps between two reports of the loss."""
    eval_steps: int | Literal["auto"] = "auto"
    """Optimizer steps between two validations. `auto`: about four in a run. First and last are always made."""
    save_steps: int | Literal["auto"] = "auto"
    """Optimizer steps between two checkpoints, from which a stopped run goes on. `auto`: one per epoch."""

    def __post_init__(self) -> None:
        if not isinstance(self.target_modules, str):
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        _refuse({name: fault(name, getattr(self, name), expected) for name, expected in _types().items()})

    @property
    def served_base_name(self) -> str:
        """The name that the base model is served under."""
        return self.base_model_name or self.default_base_model_name(self.base_model)

    @property
    def base_is_folder(self) -> bool:
        """Whether `base_model` means a local folder rather than a hub id."""
        return Path(self.base_model).is_dir()

    @staticmethod
    def default_base_model_name(base_model: str) -> str:
        """What a base is called unless it's given a name: the folder's name, or the hub id as it is."""
        folder = Path(base_model)
        return folder.resolve().name if folder.is_dir() or looks_like_path(base_model) else base_model

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """The configuration that `values` spells out.

        Raises:
            ConfigError: with every unknown, missing, mistyped and out-of-range value.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        faults: dict[str, str | None] = {str(name): unknown(str(name), known) for name in values if name not in known}
        for name, field in known.items():
            if name in values:
                faults[name] = fault(name, values[name], _types()[name])
            elif field.default is dataclasses.MISSING:
                faults[name] = "is required"
        _refuse(faults)
        return cls(**values)

    @classmethod
    def from_yaml(cls, path: Path) -> TrainingConfig:
        """The configuration in the YAML file at `path`.

        Raises:
            ConfigError: as `from_dict`, or because `path` can't be read or isn't a YAML mapping.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError([f"{path} can't be read as YAML: {error}. Give a YAML file in UTF-8."]) from error
        if not isinstance(values, dict):
            raise ConfigError([f"{path} must hold one `name: value` a line, such as `base_model: ./my-model`."])
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` turns them back into an equal configuration."""
        values = dataclasses.asdict(self)
        if not isinstance(self.target_modules, str):
            values["target_modules"] = list(self.target_modules)
        return values

    def to_json(self) -> str:
        """`to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


@cache
def _types() -> dict[str, Any]:
    return typing.get_type_hints(TrainingConfig)


def _refuse(faults: Mapping[str, str | None]) -> None:
    """Raises `ConfigError` when any setting in `faults` has a fault."""
    wrong = {name: text for name, text in faults.items() if text}
    if wrong:
        raise ConfigError(
            [f"`{name}` {text}" + ("" if text.endswith("?") else ".") for name, text in wrong.items()],
            param=next(iter(wrong)),
        )
