"""Aliases and their history."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("model", sa.String()),
        sa.Column("trail", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.Integer(), nullable=False),
    )
    op.create_table(
        "alias_changes",
        sa.Column("number", BIG, primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("from_model", sa.String()),
        sa.Column("to_model", sa.String()),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.String()),
    )
    op.create_index("ix_alias_changes_alias_number", "alias_changes", ["alias", "number"])


def downgrade() -> None:
    op.drop_table("alias_changes")
    op.drop_table("aliases")
