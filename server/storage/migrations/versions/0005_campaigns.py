"""Comparisons of more than two, and of conversations that went apart; campaigns."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

COMPARISON_COLUMNS = {"others": sa.JSON, "histories": sa.JSON, "campaign_id": sa.String, "assigned_to": sa.String}


def _tables() -> dict[str, tuple[sa.schema.SchemaItem, ...]]:
    return {
        "campaigns": (
            sa.Column("number", BIG, primary_key=True),
            sa.Column("id", sa.String(), nullable=False, unique=True),
            sa.Column("name", sa.String(), nullable=False),
            sa.Column("status", sa.String(), nullable=False),
            sa.Column("error", sa.JSON()),
            sa.Column("models", sa.JSON(), nullable=False),
            sa.Column("prompts", sa.Integer(), nullable=False),
            sa.Column("raters_per_item", sa.Integer(), nullable=False),
            sa.Column("sampling", sa.JSON(), nullable=False),
            sa.Column("dimensions", sa.Boolean(), nullable=False),
            sa.Column("created_at", sa.Integer(), nullable=False),
            sa.Column("closed_at", sa.Integer()),
            sa.Column("created_by", sa.String()),
            sa.Column("project", sa.String(), nullable=False),
        ),
        "campaign_prompts": (
            sa.Column("campaign_id", sa.String(), primary_key=True),
            sa.Column("position", sa.Integer(), primary_key=True),
            sa.Column("messages", sa.JSON(), nullable=False),
            sa.Column("answered", sa.Integer(), nullable=False),
        ),
        "campaign_answers": (
            sa.Column("number", BIG, primary_key=True),
            sa.Column("id", sa.String(), nullable=False, unique=True),
            sa.Column("campaign_id", sa.String(), nullable=False),
            sa.Column("position", sa.Integer(), nullable=False),
            sa.Column("model", sa.String(), nullable=False),
            sa.Column("status", sa.String(), nullable=False),
            sa.Column("attempts", sa.Integer(), nullable=False),
            sa.Column("answer", sa.JSON()),
            sa.Column("error", sa.JSON()),
            sa.Column("finished_at", sa.Integer()),
            sa.UniqueConstraint(
                "campaign_id", "position", "model", name="uq_campaign_answers_campaign_id_position_model"
            ),
        ),
        "campaign_items": (
            sa.Column("number", BIG, primary_key=True),
            sa.Column("campaign_id", sa.String(), nullable=False),
            sa.Column("position", sa.Integer(), nullable=False),
            sa.Column("model_a", sa.String(), nullable=False),
            sa.Column("model_b", sa.String(), nullable=False),
            sa.Column("answers", sa.Integer(), nullable=False),
            sa.Column("places_taken", sa.Integer(), nullable=False),
            sa.Column("shuffle", sa.Integer(), nullable=False),
            sa.UniqueConstraint(
                "campaign_id",
                "position",
                "model_a",
                "model_b",
                name="uq_campaign_items_campaign_id_position_model_a_model_b",
            ),
        ),
        "campaign_raters": (
            sa.Column("campaign_id", sa.String(), primary_key=True),
            sa.Column("rater", sa.String(), primary_key=True),
            sa.Column("asked_at", sa.Integer(), nullable=False),
        ),
        "campaign_assignments": (
            sa.Column("comparison_id", sa.String(), primary_key=True),
            sa.Column("campaign_id", sa.String(), nullable=False),
            sa.Column("item", BIG, nullable=False),
            sa.Column("rater", sa.String(), nullable=False),
            sa.Column("status", sa.String(), nullable=False),
            sa.Column("assigned_at", sa.Integer(), nullable=False),
            sa.UniqueConstraint("item", "rater", name="uq_campaign_assignments_item_rater"),
        ),
        "campaign_invitations": (
            sa.Column("number", BIG, primary_key=True),
            sa.Column("id", sa.String(), nullable=False, unique=True),
            sa.Column("campaign_id", sa.String(), nullable=False),
            sa.Column("rater", sa.String(), nullable=False),
            sa.Column("sha256", sa.String(), nullable=False, unique=True),
            sa.Column("created_at", sa.Integer(), nullable=False),
            sa.Column("expires_at", sa.Integer(), nullable=False),
            sa.Column("revoked_at", sa.Integer()),
            sa.Column("created_by", sa.String()),
        ),
    }


INDEXES = (
    ("campaigns", ["status"]),
    ("campaign_answers", ["status", "number"]),
    ("campaign_answers", ["campaign_id", "status", "finished_at"]),
    ("campaign_items", ["campaign_id", "answers", "places_taken", "shuffle"]),
    ("campaign_assignments", ["campaign_id", "status", "assigned_at"]),
    ("campaign_assignments", ["campaign_id", "rater", "status"]),
    ("campaign_invitations", ["campaign_id"]),
)


def upgrade() -> None:
    for name, kind in COMPARISON_COLUMNS.items():  # in place: the table must not be made anew while votes refer to it
        op.add_column("comparisons", sa.Column(name, kind()))
    for table, parts in _tables().items():
        op.create_table(table, *parts)
    for table, columns in INDEXES:
        op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)


def downgrade() -> None:
    for table in reversed(_tables()):
        op.drop_table(table)
    for name in COMPARISON_COLUMNS:
        op.drop_column("comparisons", name)
