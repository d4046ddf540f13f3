"""What a run on a file will do, as plain JSON values: schedule, time, memory. Prints nothing and loads no weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.config.config import ConfigError, TrainingConfig
from training.data.formats.read import FAULTS_SHOWN, Fault, iter_examples
from training.inspection.figures.data_figures import token_figures
from training.inspection.figures.file_report import fit
from training.inspection.tokenizer import load_tokenizer
from training.preflight.model_shape import ModelShape, ModelShapeError
from training.rendering.pieces import not_rendered_note


def run_report(question: Mapping[str, Any]) -> dict[str, Any] | None:
    """The forecast for `config`, all of it with places on this machine; None where no example can be learned from.

    question: `config`; `free_bytes`, memory that the run can have, or None to look how much is free.

    Raises:
        ConfigError: a setting or the base can't be used.
    """
    from training.inspection.forecast.forecast import forecast_of  # brings torch

    config = TrainingConfig.from_dict(question["config"])
    found = iter_examples(Path(config.training_file), config.file_format)
    readable = [one for one in found if not isinstance(one, Fault)]
    examples = fit(readable, config.method, lambda _fault: None)  # the job's own check tells them
    if not examples:
        return None
    try:
        shape = ModelShape.from_folder(Path(config.base_model))
    except ModelShapeError as error:
        raise ConfigError([str(error)], param="base_model") from error
    lengths, tokens = token_figures(examples, config, load_tokenizer(config.base_model))
    run = forecast_of(len(examples), lengths, tokens, config, shape, free_bytes=question.get("free_bytes"))
    return {
        **dataclasses.asdict(run),
        "findings": [*filter(None, [not_rendered_note(tokens.not_rendered)]), *run.findings],
        "memory_total_bytes": run.memory.total,
        "examples": len(examples),
        "faults": [{"line": fault.line, "message": fault.reason} for fault in tokens.faults[:FAULTS_SHOWN]],
    }
