"""Writes the result of a run, an adapter or a whole model: temporary folder, reload, measurement, rename into place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapter_format.manifest import Manifest
from training.config.config import TrainingConfig
from training.model.adapter_dir import move_into_place, reload_adapter, save_adapter, temporary_adapter_dir
from training.model.base import Base
from training.result.merging import save_model


def publish_result(
    config: TrainingConfig,
    base: Base,
    name: str,
    final_metrics: Callable[[], dict[str, Any]],
    *,
    training_file_sha256: str | None,
    make_reference: Callable[[Path], dict[str, Any] | None],
) -> dict[str, Any]:
    """Write the trained weights and move them into place; return the metrics.

    Args:
        training_file_sha256: from when the run started; the file may have been edited since.
        final_metrics: measures the reloaded model, which is what will be served.
        make_reference: takes a LoRA adapter's directory, returns what an engine must match. Called last: it may reuse
            the model's memory.

    Raises:
        AdapterWriteError: the result is unusable, or `output_dir` was created in the meantime.
    """
    output_dir = Path(config.output_dir)
    with temporary_adapter_dir(output_dir) as partial:
        merged = None
        if config.serve_as == "model":
            merged = save_model(base, partial)
        else:
            save_adapter(base.model, partial, base.start)
            reload_adapter(base.model, partial)
        metrics = final_metrics()
        manifest = _manifest(config, base, name, training_file_sha256, metrics)
        if merged:
            manifest["merge"] = asdict(merged)
        if config.serve_as == "adapter" and config.finetuning_type == "lora":
            manifest["parity_reference"] = make_reference(partial)
        move_into_place(partial, output_dir, manifest)
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
