"""Adapters from disk, put on a base model: to be trained on, or to be merged. Reads safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from adapter_format.files import CONFIG_FILE, WEIGHTS_FILE
from training.config.config import TrainingConfig
from training.model.adapters import in_float32
from training.model.layers import BaseModelError, first_line, listed

PEFT_TYPES = {"lora": "LORA", "prefix_tuning": "PREFIX_TUNING", "p_tuning": "P_TUNING"}
_TAKEN_FROM_ADAPTER = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save")


def existing_adapter(model: Any, config: TrainingConfig, directory: Path) -> tuple[PeftModel, tuple[str, ...]]:
    """`model` with the adapter in `directory` on it, to be trained on; and what to tell of it, a sentence each.

    Rank, strength and layers are the adapter's; dropout is the configuration's.

    Raises:
        BaseModelError: it can't be read, is of another kind, or doesn't fit the base.
    """
    saved = _saved_config(directory, config)
    if isinstance(saved, LoraConfig):
        saved.lora_dropout = config.lora_dropout
        saved.init_lora_weights = True  # every value is read; "orthogonal" can't even be tried beside a 4-bit base
    try:
        adapted = put_on(model, directory, saved, is_trainable=True)
    except ValueError as error:
        raise _unfit(directory, str(error)) from error
    return in_float32(adapted), _told(saved, config)


def put_on(model: Any, directory: Path, saved: PeftConfig, *, is_trainable: bool) -> PeftModel:
    """`model` with the adapter in `directory` on it; only safetensors are read.

    Raises:
        ValueError: the adapter can't be read, or isn't made for layers such as these; the text says which.
    """
    try:
        with safe_open(directory / WEIGHTS_FILE, framework="pt") as file:
            stored = set(file.keys())
        adapted = PeftModel.from_pretrained(model, str(directory), is_trainable=is_trainable, config=saved)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ValueError(f"it doesn't fit the base model: {first_line(error)}") from error
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if stored != wanted:  # PEFT would only warn, and leave the layers that it found nothing for untrained
        odd = sorted(stored ^ wanted)[0]
        raise ValueError(f"its layers aren't those of the base model: {odd} is on one side only")
    return adapted


def read_adapter_config(directory: Path) -> PeftConfig:
    """The `adapter_config.json` in `directory`.

    Raises:
        ValueError: it or the weights aren't there, can't be read, or would change the base itself.
    """
    if not (directory / WEIGHTS_FILE).is_file() or not (directory / CONFIG_FILE).is_file():
        raise ValueError(f"it needs {CONFIG_FILE} and {WEIGHTS_FILE}; other forms, such as .bin, aren't read")
    try:
        saved = PeftConfig.from_pretrained(str(directory))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"its {CONFIG_FILE} can't be read: {first_line(error)}") from error
    if getattr(saved, "init_lora_weights", True) not in (True, False, "gaussian", "orthogonal"):
        raise ValueError(f"its init_lora_weights {saved.init_lora_weights!r} would change the base itself")
    return saved


def _saved_config(directory: Path, config: TrainingConfig) -> PeftConfig:
    try:
        saved = read_adapter_config(directory)
    except ValueError as error:
        raise _unfit(directory, str(error)) from error
    kind = getattr(saved.peft_type, "value", saved.peft_type)
    if kind != PEFT_TYPES.get(config.finetuning_type):
        raise _unfit(
            directory, f"it is of the kind {kind}, and `finetuning_type` is {config.finetuning_type}; make them agree"
        )
    if kind == "P_TUNING" or getattr(saved, "prefix_projection", False):
        raise _unfit(
            directory, "of such an adapter only the vectors are kept, not the network that made them, so it can't be "
            "trained on"
        )  # fmt: skip
    return saved


def _told(saved: PeftConfig, config: TrainingConfig) -> tuple[str, ...]:
    if not isinstance(saved, LoraConfig):
        return (f"goes on from {config.from_adapter}",)
    default = {field: TrainingConfig.__dataclass_fields__[field].default for field in _TAKEN_FROM_ADAPTER}
    ignored = [
        f"`{name}` {getattr(config, name)!r} isn't used: the adapter's is {getattr(saved, name)!r}"
        for name in _TAKEN_FROM_ADAPTER
        if getattr(config, name) != default[name] and _plain(getattr(config, name)) != _plain(getattr(saved, name))
    ]
    on = "its layers" if isinstance(saved.target_modules, str) else listed(saved.target_modules or ())
    return (f"goes on from {config.from_adapter}: r {saved.r}, lora_alpha {saved.lora_alpha}, on {on}", *ignored)


def _plain(value: Any) -> Any:
    """Equal for what means the same: nothing, an empty list; a tuple, a list."""
    return (list(value) if isinstance(value, tuple | set) else value) or None


def _unfit(directory: Path, reason: str) -> BaseModelError:
    return BaseModelError(f"The adapter in {directory} can't be gone on from: {reason}.", param="from_adapter")
