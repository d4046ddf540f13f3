"""Loads adapters from disk onto a base model, to train them further or to merge them. Only safetensors are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from adapter_format.files import CONFIG_FILE, WEIGHTS_FILE
from training.config.config import TrainingConfig
from training.model.adapters import cast_trained_to_float32
from training.model.layers import BaseModelError, first_line, format_names

PEFT_TYPES = {"lora": "LORA", "prefix_tuning": "PREFIX_TUNING", "p_tuning": "P_TUNING"}
_TAKEN_FROM_ADAPTER = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save")


def load_adapter(model: Any, config: TrainingConfig, directory: Path) -> tuple[PeftModel, tuple[str, ...]]:
    """Load the adapter in `directory` onto `model` for further training; return it with notes for the user.

    Rank, scaling and layers are the adapter's; dropout is the configuration's.

    Raises:
        BaseModelError: it can't be read, is of another type, or doesn't fit the base.
    """
    saved = _saved_config(directory, config)
    if isinstance(saved, LoraConfig):
        saved.lora_dropout = config.lora_dropout
        saved.init_lora_weights = True  # all values are loaded; "orthogonal" would even fail beside a 4-bit base
    try:
        adapted = apply_adapter(model, directory, saved, is_trainable=True)
    except ValueError as error:
        raise _adapter_error(directory, str(error)) from error
    return cast_trained_to_float32(adapted), _describe_adapter(saved, config)


def apply_adapter(model: Any, directory: Path, saved: PeftConfig, *, is_trainable: bool) -> PeftModel:
    """Load the adapter in `directory` onto `model`; only safetensors are read.

    Raises:
        ValueError: the adapter can't be read, or is for other layers; the message says which.
    """
    try:
        with safe_open(directory / WEIGHTS_FILE, framework="pt") as file:
            stored = set(file.keys())
        adapted = PeftModel.from_pretrained(model, str(directory), is_trainable=is_trainable, config=saved)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ValueError(f"it doesn't fit the base model: {first_line(error)}") from error
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if stored != wanted:  # PEFT would only warn, and leave layers without stored weights untrained
        odd = sorted(stored ^ wanted)[0]
        raise ValueError(f"its layers don't match the base model's: {odd} is only in one of them")
    return adapted


def read_adapter_config(directory: Path) -> PeftConfig:
    """Read the `adapter_config.json` in `directory`.

    Raises:
        ValueError: it or the weights are missing, can't be read, or would change the base itself.
    """
    if not (directory / WEIGHTS_FILE).is_file() or not (directory / CONFIG_FILE).is_file():
        raise ValueError(f"it needs {CONFIG_FILE} and {WEIGHTS_FILE}; other formats, such as .bin, aren't supported")
    try:
        saved = PeftConfig.from_pretrained(str(directory))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"its {CONFIG_FILE} can't be read: {first_line(error)}") from error
    if getattr(saved, "init_lora_weights", True) not in (True, False, "gaussian", "orthogonal"):
        raise ValueError(f"its init_lora_weights {saved.init_lora_weights!r} would change the base model itself")
    return saved


def _saved_config(directory: Path, config: TrainingConfig) -> PeftConfig:
    try:
        saved = read_adapter_config(directory)
    except ValueError as error:
        raise _adapter_error(directory, str(error)) from error
    kind = getattr(saved.peft_type, "value", saved.peft_type)
    if kind != PEFT_TYPES.get(config.finetuning_type):
        raise _adapter_error(
            directory, f"its type is {kind}, but `finetuning_type` is {config.finetuning_type}; they must match"
        )
    if kind == "P_TUNING" or getattr(saved, "prefix_projection", False):
        raise _adapter_error(
            directory, "only its vectors were saved, not the network behind them, so it can't be trained further"
        )  # fmt: skip
    return saved


def _describe_adapter(saved: PeftConfig, config: TrainingConfig) -> tuple[str, ...]:
    if not isinstance(saved, LoraConfig):
        return (f"continuing from {config.from_adapter}",)
    default = {field: TrainingConfig.__dataclass_fields__[field].default for field in _TAKEN_FROM_ADAPTER}
    ignored = [
        f"`{name}` {getattr(config, name)!r} is ignored: the adapter has {getattr(saved, name)!r}"
        for name in _TAKEN_FROM_ADAPTER
        if getattr(config, name) != default[name]
        and _normalize(getattr(config, name)) != _normalize(getattr(saved, name))
    ]
    on = "its layers" if isinstance(saved.target_modules, str) else format_names(saved.target_modules or ())
    return (f"continuing from {config.from_adapter}: r {saved.r}, lora_alpha {saved.lora_alpha}, on {on}", *ignored)


def _normalize(value: Any) -> Any:
    """Normalise values that mean the same: nothing and an empty list; a tuple and a list."""
    return (list(value) if isinstance(value, tuple | set) else value) or None


def _adapter_error(directory: Path, reason: str) -> BaseModelError:
    return BaseModelError(f"Can't continue from the adapter in {directory}: {reason}.", param="from_adapter")
