"""Files, uploads, fine-tuning jobs with their events and checkpoints, webhooks; projects and admins among the keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("api_keys") as keys:
        keys.add_column(sa.Column("project", sa.String(), nullable=False, server_default="default"))
        # What keys could do before there were admins, they can still do.
        keys.add_column(sa.Column("is_admin", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_table(
        "files",
        sa.Column("number", BIG, primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("bytes", BIG, nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("status_details", sa.String()),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Integer()),
        sa.Column("created_by", sa.String()),
    )
    op.create_index("ix_files_purpose", "files", ["purpose"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("bytes", BIG, nullable=False),
        sa.Column("mime_type", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Integer(), nullable=False),
        sa.Column("file_expires_after_s", sa.Integer()),
        sa.Column("file_id", sa.String()),
        sa.Column("created_by", sa.String()),
    )
    op.create_table(
        "upload_parts",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("upload_id", sa.String(), sa.ForeignKey("uploads.id"), nullable=False),
        sa.Column("bytes", BIG, nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
    )
    op.create_index("ix_upload_parts_upload_id", "upload_parts", ["upload_id"])
    op.create_table(
        "fine_tuning_jobs",
        sa.Column("number", BIG, primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("pause_requested", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Integer()),
        sa.Column("finished_at", sa.Integer()),
        sa.Column("created_by", sa.String()),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("training_file", sa.String(), nullable=False),
        sa.Column("validation_file", sa.String()),
        sa.Column("suffix", sa.String(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("hyperparameters", sa.JSON(), nullable=False),
        sa.Column("base_learning_rate", sa.Double(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("integrations", sa.JSON()),
        sa.Column("metadata", sa.JSON()),
        sa.Column("wanted_model", sa.String(), nullable=False),
        sa.Column("adapter_id", sa.String(), nullable=False),
        sa.Column("fine_tuned_model", sa.String()),
        sa.Column("trained_tokens", BIG),
        sa.Column("result_files", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON()),
        sa.Column("estimated_finish", sa.Integer()),
        sa.Column("first_token_s", sa.Double()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("events_offset", BIG, nullable=False),
        sa.Column("request_sha256", sa.String(), nullable=False),
        sa.Column("idempotency_key", sa.String()),
        sa.UniqueConstraint("created_by", "idempotency_key", name="uq_fine_tuning_jobs_created_by_idempotency_key"),
    )
    op.create_index("ix_fine_tuning_jobs_status_number", "fine_tuning_jobs", ["status", "number"])
    op.create_table(
        "fine_tuning_events",
        sa.Column("number", BIG, primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("data", sa.JSON()),
    )
    op.create_index("ix_fine_tuning_events_job_id_number", "fine_tuning_events", ["job_id", "number"])
    op.create_table(
        "fine_tuning_checkpoints",
        sa.Column("number", BIG, primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("step_number", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("adapter_id", sa.String(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.UniqueConstraint("job_id", "step_number", name="uq_fine_tuning_checkpoints_job_id_step_number"),
    )
    op.create_index("ix_fine_tuning_checkpoints_model", "fine_tuning_checkpoints", ["model"])
    op.create_table(
        "checkpoint_permissions",
        sa.Column("number", BIG, primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("checkpoint", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.UniqueConstraint("checkpoint", "project_id", name="uq_checkpoint_permissions_checkpoint_project_id"),
    )
    op.create_table(
        "webhook_endpoints",
        sa.Column("number", BIG, primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("event_types", sa.JSON(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("old_secret", sa.String()),
        sa.Column("old_secret_until", sa.Integer()),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.Integer(), nullable=False),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("endpoint_id", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("event_type", sa.String(), nullable=False),
        sa.Column("payload", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("finished_at", sa.Integer()),
        sa.Column("last_result", sa.String()),
    )
    op.create_index("ix_webhook_deliveries_status_next_attempt_at", "webhook_deliveries", ["status", "next_attempt_at"])


def downgrade() -> None:
    for table in (
        "webhook_deliveries",
        "webhook_endpoints",
        "checkpoint_permissions",
        "fine_tuning_checkpoints",
        "fine_tuning_events",
        "fine_tuning_jobs",
        "upload_parts",
        "uploads",
        "files",
    ):
        op.drop_table(table)
    with op.batch_alter_table("api_keys") as keys:
        keys.drop_column("is_admin")
        keys.drop_column("project")
