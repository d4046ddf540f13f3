"""Fine-tuning jobs with their events, their checkpoints and the permissions to use those."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.storage.tables.base import BIG, Base


class JobRow(Base):
    """One fine-tuning job. https://platform.openai.com/docs/api-reference/fine-tuning/object"""

    __tablename__ = "fine_tuning_jobs"
    __table_args__ = (UniqueConstraint("created_by", "idempotency_key"), Index(None, "status", "number"))

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    """Also the order of the queue: first in, first out."""
    id: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str]
    """`validating_files`, `queued`, `running`, `paused`, `succeeded`, `failed` or `cancelled`."""
    pause_requested: Mapped[bool] = mapped_column(default=False)
    """Whether the running process has been, or must be, asked to stop at a checkpoint."""
    created_at: Mapped[int]
    started_at: Mapped[int | None]
    """When its process was first started."""
    finished_at: Mapped[int | None]
    created_by: Mapped[str | None]
    project: Mapped[str]
    model: Mapped[str]
    """What is tuned: the name of the base, or of the tuned model that training continues from."""
    training_file: Mapped[str]
    validation_file: Mapped[str | None]
    suffix: Mapped[str]
    seed: Mapped[int]
    method: Mapped[str]
    """`supervised`, `dpo`, `text` or `kto`."""
    hyperparameters: Mapped[dict[str, Any]]
    """By OpenAI's names, as requested; `auto` is replaced by a number once the run has chosen it."""
    base_learning_rate: Mapped[float]
    """What `learning_rate_multiplier` multiplies."""
    settings: Mapped[dict[str, Any]]
    """The request's `tuneloop` settings, by `TrainingConfig`'s names."""
    integrations: Mapped[list[Any] | None]
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    wanted_model: Mapped[str]
    """The tuned model's future name."""
    adapter_id: Mapped[str]
    """Name of the folder that the run will create."""
    fine_tuned_model: Mapped[str | None]
    trained_tokens: Mapped[int | None] = mapped_column(BIG)
    result_files: Mapped[list[Any]]
    error: Mapped[dict[str, Any] | None]
    estimated_finish: Mapped[int | None]
    first_token_s: Mapped[float | None]
    """Seconds from the end of the training to the tuned model's first token."""
    attempts: Mapped[int] = mapped_column(default=0)
    """How many times in a row its process died without an error message."""
    events_offset: Mapped[int] = mapped_column(BIG, default=0)
    """Bytes of the run's events.jsonl that are in the events table."""
    request_sha256: Mapped[str]
    """Hash of the request body, to recognize a repeated request."""
    idempotency_key: Mapped[str | None]
    ratings: Mapped[dict[str, Any] | None]
    """The ratings that its training file was made from; None for an uploaded file."""


class JobEventRow(Base):
    """One event of a job. https://platform.openai.com/docs/api-reference/fine-tuning/event-object"""

    __tablename__ = "fine_tuning_events"
    __table_args__ = (Index(None, "job_id", "number"),)

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str]
    created_at: Mapped[int]
    level: Mapped[str]
    """`info`, `warn` or `error`."""
    type: Mapped[str]
    """`message` or `metrics`."""
    message: Mapped[str]
    data: Mapped[dict[str, Any] | None]


class JobCheckpointRow(Base):
    """One checkpoint, served under a name of its own.

    https://platform.openai.com/docs/api-reference/fine-tuning/checkpoint-object
    """

    __tablename__ = "fine_tuning_checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "step_number"),)

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str]
    created_at: Mapped[int]
    step_number: Mapped[int]
    model: Mapped[str] = mapped_column(index=True)
    """`ft:…:ckpt-step-N`"""
    adapter_id: Mapped[str]
    metrics: Mapped[dict[str, Any]]


class CheckpointPermissionRow(Base):
    """One project that may use a checkpoint of another project's job.

    https://platform.openai.com/docs/api-reference/fine-tuning/list-permissions
    """

    __tablename__ = "checkpoint_permissions"
    __table_args__ = (UniqueConstraint("checkpoint", "project_id"),)

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    checkpoint: Mapped[str]
    project_id: Mapped[str]
    created_at: Mapped[int]
