"""API keys, comparisons, ratings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False, unique=True),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("revoked_at", sa.Integer()),
    )
    op.create_table(
        "comparisons",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String()),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("messages", sa.JSON(), nullable=False),
        sa.Column("sampling", sa.JSON(), nullable=False),
        sa.Column("left", sa.JSON(), nullable=False),
        sa.Column("right", sa.JSON(), nullable=False),
    )
    op.create_index("ix_comparisons_created_at_id", "comparisons", ["created_at", "id"])
    op.create_table(
        "ratings",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("comparison_id", sa.String(), sa.ForeignKey("comparisons.id"), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("rater", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("dimensions", sa.JSON(), nullable=False),
        sa.Column("unsafe", sa.String()),
        sa.Column("comment", sa.String()),
        sa.UniqueConstraint("comparison_id", "rater", name="uq_ratings_comparison_id_rater"),
    )
    op.create_index("ix_ratings_created_at_id", "ratings", ["created_at", "id"])


def downgrade() -> None:
    for table in ("ratings", "comparisons", "api_keys"):
        op.drop_table(table)
