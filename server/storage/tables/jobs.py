"""Fine-tuning jobs with their events, their checkpoints and who else may use those."""

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
    """The order of the queue, too: first come, first served."""
    id: Mapped[str] = mapped_column(unique=True)
    status: Mapped[str]
    """`validating_files`, `queued`, `running`, `paused`, `succeeded`, `failed` or `cancelled`."""
    pause_requested: Mapped[bool] = mapped_column(default=False)
    """Whether the running process has been, or is to be, told to make way."""
    created_at: Mapped[int]
    started_at: Mapped[int | None]
    """When its process was first started."""
    finished_at: Mapped[int | None]
    created_by: Mapped[str | None]
    project: Mapped[str]
    model: Mapped[str]
    """What is tuned: the base's name, or the tuned model it goes on from."""
    training_file: Mapped[str]
    validation_file: Mapped[str | None]
    suffix: Mapped[str]
    seed: Mapped[int]
    method: Mapped[str]
    """`supervised`, `dpo`, `text` or `kto`."""
    hyperparameters: Mapped[dict[str, Any]]
    """By OpenAI's names, as asked for; `auto` gives way to numbers once the run has worked them out."""
    base_learning_rate: Mapped[float]
    """What `learning_rate_multiplier` multiplies."""
    settings: Mapped[dict[str, Any]]
    """What came in `tuneloop`: names of `TrainingConfig`."""
    integrations: Mapped[list[Any] | None]
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    wanted_model: Mapped[str]
    """The name that the tuned model will have."""
    adapter_id: Mapped[str]
    """The name of the folder that the run will make."""
    fine_tuned_model: Mapped[str | None]
    trained_tokens: Mapped[int | None] = mapped_column(BIG)
    result_files: Mapped[list[Any]]
    error: Mapped[dict[str, Any] | None]
    estimated_finish: Mapped[int | None]
    first_token_s: Mapped[float | None]
    """Seconds from the end of the training to the tuned model's first token."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Times in a row that its process died without a word."""
    events_offset: Mapped[int] = mapped_column(BIG, default=0)
    """Bytes of the run's events.jsonl that are in the events table."""
    request_sha256: Mapped[str]
    """Of the body that created it, to know a repeated request by."""
    idempotency_key: Mapped[str | None]
    ratings: Mapped[dict[str, Any] | None]
    """The votes that its training file was made from; None for a file that was uploaded."""


class JobEventRow(Base):
    """One thing that a job told. https://platform.openai.com/docs/api-reference/fine-tuning/event-object"""

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
    """One checkpoint that is served under a name of its own.

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
