"""Every knob of a fine-tune, with its unit, default and trade-off. Knows the rules of each value; imports no torch."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

Quantization = Literal["nf4", "none"]
ComputeDtype = Literal["auto", "float32", "bfloat16", "float16"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]


class ConfigError(ValueError):
    """A configuration that breaks one rule or several; `faults` maps each field's name to what is wrong with it."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        self.faults = dict(faults)
        lines = "".join(f"\n  {name}: {reason}" for name, reason in self.faults.items())
        super().__init__(f"The training configuration has {len(self.faults)} fault(s):{lines}")

    @property
    def param(self) -> str:
        """The first field at fault."""
        return next(iter(self.faults))


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
    """The name that clients will put in `model`, `ft:{base}:{org}:{suffix}:{8 characters}`. Default: made up, with organisation `local`."""
    validation_file: str | None = None
    """Examples that are measured but not trained on, in any of the formats. Default: `validation_fraction` of the training file."""
    validation_fraction: float = 0.1
    """Share of the training file, 0 to 0.5, that is held back when there's no `validation_file`. 0 trains on everything and measures nothing."""
    n_epochs: int = 3
    """Passes over the training file. More learns the examples closer, and in the end by heart."""
    max_steps: int | None = None
    """Stop after so many optimizer steps, whatever `n_epochs` says. Default: no such limit."""
    batch_size: int = 8
    """Examples in one forward pass. Larger is faster on a GPU and needs more memory."""
    gradient_accumulation_steps: int = 1
    """Forward passes per optimizer step: a larger batch for the same memory, at the price of time."""
    learning_rate: float = 2e-4
    """Peak step size of AdamW. Adapters bear ten times what full fine-tuning does; too high diverges, too low learns nothing. Small models want more."""
    lr_scheduler_type: Scheduler = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_ratio: float = 0.05
    """Share of the steps, 0 to 1, over which the learning rate rises from zero. Guards the first steps."""
    weight_decay: float = 0.0
    """Pull of the adapter's weights towards zero, 0 or more. A little helps against learning by heart."""
    max_grad_norm: float = 1.0
    """Longest gradient that is let through, above 0; a longer one is shortened. Guards against single bad batches."""
    r: int = 16
    """Rank of the adapter, 1 to 512. More can learn more, and costs memory and serving speed; the engine must allow it."""
    lora_alpha: int = 32
    """Strength of the adapter: its output is scaled by `lora_alpha / r`. Twice `r` is usual."""
    lora_dropout: float = 0.0
    """Share, 0 up to 1, of the adapter's inputs that is dropped in training. Helps with little data; slows learning."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Layers that get an adapter: `all-linear`, or a list such as `[q_proj, v_proj]`. Fewer is smaller and learns less."""
    quantization: Quantization = "nf4"
    """How the frozen base is held: `nf4` in 4 bit (QLoRA: a quarter of the memory) or `none` (LoRA: a little faster)."""
    double_quant: bool = True
    """Quantise the scales of `nf4` too: 0.4 bit per weight less, at no cost that was ever measured."""
    compute_dtype: ComputeDtype = "auto"
    """What the arithmetic is done in. `auto`: bfloat16 where the processor or GPU has instructions for it, else float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: a third slower, and far less memory with long examples."""
    max_length: int = 2048
    """Longest example in tokens, at least 8; what goes beyond is cut off at the end."""
    seed: int = 42
    """Seed for shuffling, splitting and the adapter's first weights. Same seed, same machine: same adapter."""
    logging_steps: int = 1
    """Optimizer steps between two reports of the loss."""
    eval_steps: int | Literal["auto"] = "auto"
    """Optimizer steps between two measurements on the validation examples. `auto`: about four in a run. The first and the last are always made."""
    save_steps: int | Literal["auto"] = "auto"
    """Optimizer steps between two checkpoints, from which an interrupted run goes on. `auto`: one per epoch."""

    def __post_init__(self) -> None:
        if isinstance(self.target_modules, list):
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        faults = {name: fault for name, fault in _faults(self) if fault}
        if faults:
            raise ConfigError(faults)

    @property
    def served_base_name(self) -> str:
        """The name that the base model is served under."""
        return self.base_model_name or (Path(self.base_model).resolve().name if self.base_is_folder else self.base_model)

    @property
    def base_is_folder(self) -> bool:
        """Whether `base_model` means a local folder rather than a hub id."""
        return looks_like_path(self.base_model) or Path(self.base_model).is_dir()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """The configuration that `values` spells out.

        Raises:
            ConfigError: with every unknown, missing, mistyped and out-of-range value.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        faults = {str(name): _unknown(str(name), known) for name in values if name not in known}
        for field in dataclasses.fields(cls):
            if field.name not in values and field.default is dataclasses.MISSING:
                faults[field.name] = "is required"
        known_values = {name: value for name, value in values.items() if name in known}
        faults.update((name, fault) for name, value in known_values.items() if (fault := _fault(name, value)))
        if faults:
            raise ConfigError(faults)
        return cls(**known_values)

    @classmethod
    def from_yaml(cls, path: Path) -> TrainingConfig:
        """The configuration in the YAML file at `path`.

        Raises:
            ConfigError: as `from_dict`, or because `path` can't be read or isn't a YAML mapping.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError({str(path): f"can't be read as YAML: {error}"}) from error
        if not isinstance(values, dict):
            raise ConfigError({str(path): "must hold a YAML mapping such as `base_model: ./my-model`, one setting a line"})
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


def looks_like_path(base_model: str) -> bool:
    """Whether `base_model` can't be a hub id (`name` or `owner/name`) and so must be a folder."""
    return base_model.startswith((".", "/", "~", "\\")) or base_model.count("/") > 1 or base_model.endswith("/")


def _at_least(low: float) -> Callable[[Any], str | None]:
    return lambda value: None if value >= low else f"is {value}, but must be {low} or more"


def _above_zero(value: Any) -> str | None:
    return None if 0 < value < float("inf") else f"is {value}, but must be a finite number above 0"


def _between(low: float, high: float) -> Callable[[Any], str | None]:
    return lambda value: None if low <= value <= high else f"is {value}, but must be from {low} to {high}"


def _not_blank(value: Any) -> str | None:
    return None if str(value).strip() else "is empty"


def _modules(value: Any) -> str | None:
    names = [value] if isinstance(value, str) else value
    return None if names and all(names) else "is empty; give `all-linear` or names such as [q_proj, v_proj]"


def _folder_or_hub_id(value: Any) -> str | None:
    if not value.strip():
        return "is empty; give a local folder or a hub id such as Qwen/Qwen3-0.6B"
    if looks_like_path(value) and not Path(value).expanduser().is_dir():
        return f"is {value!r}, which isn't a folder here; give an existing folder, or a hub id such as Qwen/Qwen3-0.6B"
    return None


_RULES: Mapping[str, Callable[[Any], str | None]] = {
    "base_model": _folder_or_hub_id,
    "training_file": _not_blank,
    "output_dir": _not_blank,
    "base_model_name": _not_blank,
    "fine_tuned_model": _not_blank,
    "validation_file": _not_blank,
    "validation_fraction": _between(0, 0.5),
    "n_epochs": _between(1, 1000),
    "max_steps": _at_least(1),
    "batch_size": _between(1, 4096),
    "gradient_accumulation_steps": _between(1, 4096),
    "learning_rate": _above_zero,
    "warmup_ratio": _between(0, 1),
    "weight_decay": _between(0, 10),
    "max_grad_norm": _above_zero,
    "r": _between(1, 512),
    "lora_alpha": _between(1, 4096),
    "lora_dropout": _between(0, 0.95),
    "target_modules": _modules,
    "max_length": _between(8, 1_000_000),
    "seed": _between(0, 2**32 - 1),
    "logging_steps": _at_least(1),
    "eval_steps": lambda value: None if value == "auto" else _at_least(1)(value),
    "save_steps": lambda value: None if value == "auto" else _at_least(1)(value),
}


@cache
def _types() -> dict[str, Any]:
    return typing.get_type_hints(TrainingConfig)


def _faults(config: TrainingConfig) -> list[tuple[str, str | None]]:
    return [(field.name, _fault(field.name, getattr(config, field.name))) for field in dataclasses.fields(config)]


def _fault(name: str, value: Any) -> str | None:
    """What is wrong with `value` for the field `name`; None when nothing is."""
    expected = _types()[name]
    if not _fits(value, expected):
        return f"is {value!r}, but must be {_described(expected)}"
    if value is None or name not in _RULES:
        return None
    return _RULES[name](value)


def _fits(value: Any, expected: Any) -> bool:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments and isinstance(value, str)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


def _described(expected: Any) -> str:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_described(one) for one in arguments)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin is tuple:
        return "a list of names"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    return words[expected]


def _unknown(name: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return "is not a setting" + (f"; did you mean `{nearest[0]}`?" if nearest else "; `docs/training.md` lists them all")
