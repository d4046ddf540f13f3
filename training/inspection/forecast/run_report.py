"""The forecast of a run on a file as plain JSON values: schedule, time, memory. Loads no weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.config.config import ConfigError, TrainingConfig
from training.data.formats.read import FAULTS_SHOWN, Fault, iter_examples
from training.inspection.figures.data_figures import compute_token_figures
from training.inspection.figures.file_report import select_fitting
from training.inspection.tokenizer import load_tokenizer
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.rendering.pieces import not_rendered_note


def run_report(question: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the forecast for `config`, with all of this machine for it; None if no example can be trained on.

    question: `config`; `free_bytes`, memory available to the run, or None to use what is free.

    Raises:
        ConfigError: a setting or the base can't be used.
    """
    from training.inspection.forecast.forecast import forecast_figures  # brings torch

    config = TrainingConfig.from_dict(question["config"])
    found = iter_examples(Path(config.training_file), config.file_format)
    readable = [item for item in found if not isinstance(item, Fault)]
    examples = select_fitting(readable, config.method, lambda _fault: None)  # the job's own check reports them
    if not examples:
        return None
    try:
        shape = ModelShape.from_folder(Path(config.base_model))
    except ModelShapeError as error:
        raise ConfigError([str(error)], param="base_model") from error
    lengths, tokens = compute_token_figures(examples, config, load_tokenizer(config.base_model))
    run = forecast_figures(len(examples), lengths, tokens, config, shape, free_bytes=question.get("free_bytes"))
    return {
        **dataclasses.asdict(run),
        "findings": [*filter(None, [not_rendered_note(tokens.not_rendered)]), *run.findings],
        "memory_total_bytes": run.memory.total,
        "examples": len(examples),
        "faults": [{"line": fault.line, "message": fault.reason} for fault in tokens.faults[:FAULTS_SHOWN]],
    }
