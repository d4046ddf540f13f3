"""Jobs, events and checkpoints as OpenAI's API objects; our own fields are under `tuneloop`.

https://platform.openai.com/docs/api-reference/fine-tuning/object
"""

from __future__ import annotations

from typing import Any

from server.settings import Settings
from server.storage.tables import JobCheckpointRow, JobEventRow, JobRow

OPENAI_METHODS = ("supervised", "dpo")
"""The methods that the SDK's types have; others are shown only under `tuneloop`."""
HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier")


def job_object(row: JobRow, settings: Settings, *, queue_position: int | None = None) -> dict[str, Any]:
    """Return the `fine_tuning.job`.

    queue_position: 1 for the next job; None if it isn't waiting.
    """
    return {
        "id": row.id,
        "object": "fine_tuning.job",
        "created_at": row.created_at,
        "error": row.error,
        "fine_tuned_model": row.fine_tuned_model,
        "finished_at": row.finished_at,
        "hyperparameters": {name: row.hyperparameters.get(name, "auto") for name in HYPERPARAMETERS},
        "model": row.model,
        "organization_id": settings.organization,
        "result_files": row.result_files,
        "status": settings.paused_job_status if row.status == "paused" else row.status,
        "trained_tokens": row.trained_tokens,
        "training_file": row.training_file,
        "validation_file": row.validation_file,
        "seed": row.seed,
        "estimated_finish": row.estimated_finish if row.status == "running" else None,
        "integrations": row.integrations or [],
        "method": _build_method(row),
        "metadata": row.metadata_,
        "user_provided_suffix": row.suffix or None,
        "tuneloop": _build_extension(row, queue_position),
    }


def event_object(row: JobEventRow) -> dict[str, Any]:
    """Return the `fine_tuning.job.event`."""
    return {
        "id": row.id,
        "object": "fine_tuning.job.event",
        "created_at": row.created_at,
        "level": row.level,
        "message": row.message,
        "type": row.type,
        "data": row.data or {},
    }


def checkpoint_object(row: JobCheckpointRow) -> dict[str, Any]:
    """Return the `fine_tuning.job.checkpoint`."""
    return {
        "id": row.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": row.created_at,
        "fine_tuned_model_checkpoint": row.model,
        "fine_tuning_job_id": row.job_id,
        "step_number": row.step_number,
        "metrics": {"step": row.step_number, **row.metrics},
    }


def _build_method(row: JobRow) -> dict[str, Any] | None:
    if row.method not in OPENAI_METHODS:
        return None
    return {"type": row.method, row.method: {"hyperparameters": row.hyperparameters}}


def _build_extension(row: JobRow, queue_position: int | None) -> dict[str, Any]:
    return {
        "state": "pausing" if row.status == "running" and row.pause_requested else row.status,
        "method": {"type": row.method, row.method: {"hyperparameters": row.hyperparameters}},
        "settings": row.settings,
        "base_learning_rate": row.base_learning_rate,
        "fine_tuned_model": row.wanted_model,
        "queue_position": queue_position,
        "started_at": row.started_at,
        "first_token_s": row.first_token_s,
        "ratings": row.ratings,
    }
