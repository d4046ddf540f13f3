"""What a run leaves: an adapter or a whole model, written aside, read back, measured, and renamed into place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import load_peft_weights, set_peft_model_state_dict
from transformers.utils import cached_file

from training.adapter_dir import adapter_aside, base_model_sha256, file_sha256, put_in_place, save_adapter
from training.config import TrainingConfig
from training.model import Base


def put_result_in_place(
    config: TrainingConfig, base: Base, name: str, final_metrics: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Writes the trained weights and puts them in place; returns the metrics.

    Args:
        final_metrics: measures the model as it was read back; what is measured is what will be served.

    Raises:
        AdapterWriteError: the result is unusable, or `output_dir` came to exist.
    """
    output_dir = Path(config.output_dir)
    with adapter_aside(output_dir) as partial:
        save_adapter(base.model, partial)
        set_peft_model_state_dict(base.model, load_peft_weights(str(partial), device="cpu"))
        metrics = final_metrics()
        put_in_place(partial, output_dir, _manifest(config, name, metrics))
    return metrics


def _manifest(config: TrainingConfig, name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "base_model": config.served_base_name,
        "base_model_sha256": base_model_sha256(_folder_of(config)),
        "training_file_sha256": file_sha256(Path(config.training_file)),
        "config": config.to_dict(),
        "metrics": metrics,
    }


def _folder_of(config: TrainingConfig) -> Path:
    """Where the base model's files are: its own folder, or the hub's cache."""
    if config.base_is_folder:
        return Path(config.base_model)
    return Path(cached_file(config.base_model, "config.json", local_files_only=True)).parent
