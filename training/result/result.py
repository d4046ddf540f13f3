"""What a run leaves: an adapter or a whole model, written aside, read back, measured, and renamed into place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapter_format.manifest import Manifest
from training.config.config import TrainingConfig
from training.model.adapter_dir import adapter_aside, put_in_place, read_back, save_adapter
from training.model.base import Base
from training.result.merging import save_model


def put_result_in_place(
    config: TrainingConfig,
    base: Base,
    name: str,
    final_metrics: Callable[[], dict[str, Any]],
    *,
    training_file_sha256: str | None,
    make_reference: Callable[[Path], dict[str, Any] | None],
) -> dict[str, Any]:
    """Writes the trained weights and puts them in place; returns the metrics.

    Args:
        training_file_sha256: as it was when the run began; it may have been edited since.
        final_metrics: measures the model as it was read back; what is measured is what will be served.
        make_reference: given a LoRA adapter's directory, what an engine must match. The last that is done: it may take
            the model's memory.

    Raises:
        AdapterWriteError: the result is unusable, or `output_dir` came to exist.
    """
    output_dir = Path(config.output_dir)
    with adapter_aside(output_dir) as partial:
        merged = None
        if config.serve_as == "model":
            merged = save_model(base, partial)
        else:
            save_adapter(base.model, partial, base.start)
            read_back(base.model, partial)
        metrics = final_metrics()
        manifest = _manifest(config, base, name, training_file_sha256, metrics)
        if merged:
            manifest["merge"] = asdict(merged)
        if config.serve_as == "adapter" and config.finetuning_type == "lora":
            manifest["parity_reference"] = make_reference(partial)
        put_in_place(partial, output_dir, manifest)
    return metrics


def _manifest(
    config: TrainingConfig, base: Base, name: str, training_file_sha256: str | None, metrics: dict[str, Any]
) -> Manifest:
    return {
        "name": name,
        "base_model": config.served_base_name,
        "base_model_sha256": base.sha256,
        "training_file_sha256": training_file_sha256,
        "config": config.to_dict(),
        "metrics": metrics,
    }
