"""Votes that supersede others, numbered in their order, with who cast them and what the statistics need of their
comparisons; jobs that were made from votes."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from server.storage.migrations.rating_facts_0004 import compute_facts

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEPT = ("id", "comparison_id", "created_at", "rater", "verdict", "dimensions", "unsafe", "comment")
"""The columns of a vote that it has before and after."""


def _build_columns() -> list[sa.Column[Any]]:
    """What a vote says, beside its id."""
    return [
        sa.Column("comparison_id", sa.String(), sa.ForeignKey("comparisons.id"), nullable=False),
        sa.Column("created_at", sa.Integer(), nullable=False),
        sa.Column("rater", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("dimensions", sa.JSON(), nullable=False),
        sa.Column("unsafe", sa.String()),
        sa.Column("comment", sa.String()),
    ]


def _added() -> list[sa.Column[Any]]:
    """What a vote gets."""
    return [
        sa.Column("cast_by", sa.String()),
        sa.Column("supersedes", sa.String(), nullable=False, server_default=""),
        sa.Column("names_seen", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("blind", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("campaign", sa.String()),
        sa.Column("left_model", sa.String(), nullable=False, server_default=""),
        sa.Column("right_model", sa.String(), nullable=False, server_default=""),
        sa.Column("prompt_sha", sa.String(), nullable=False, server_default=""),
        sa.Column("pair_sha", sa.String(), nullable=False, server_default=""),
        sa.Column("fault", sa.String()),
        sa.Column("style", sa.JSON()),
    ]


INDEXES = (["created_at"], ["supersedes"], ["rater", "pair_sha"], ["campaign"])
OLD, NEW = ["comparison_id", "rater"], ["comparison_id", "rater", "supersedes"]


def upgrade() -> None:
    op.add_column("fine_tuning_jobs", sa.Column("ratings", sa.JSON()))
    _make_anew(
        sa.Column("number", BIG, primary_key=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        *_build_columns(),
        *_added(),
        sa.UniqueConstraint(*NEW, name="uq_ratings_comparison_id_rater_supersedes"),
    )
    for names in INDEXES:
        op.create_index(f"ix_ratings_{'_'.join(names)}", "ratings", names)
    _fill()


def downgrade() -> None:
    """Keeps of every rater's votes on a comparison the last one; the rest had no place before."""
    later = sa.text("DELETE FROM ratings WHERE id IN (SELECT supersedes FROM ratings) OR verdict = 'withdrawn'")
    op.execute(later)
    unique = sa.UniqueConstraint(*OLD, name="uq_ratings_comparison_id_rater")
    _make_anew(sa.Column("id", sa.String(), primary_key=True), *_build_columns(), unique)
    op.create_index("ix_ratings_created_at_id", "ratings", ["created_at", "id"])
    with op.batch_alter_table("fine_tuning_jobs") as batch:
        batch.drop_column("ratings")


def _make_anew(*parts: sa.schema.SchemaItem) -> None:
    """The table with these parts, and in it the votes that are there, in their order. Nothing refers to the table."""
    op.execute("CREATE TABLE ratings_before AS SELECT * FROM ratings")
    op.drop_table("ratings")
    op.create_table("ratings", *parts)
    names = ", ".join(KEPT)
    op.execute(f"INSERT INTO ratings ({names}) SELECT {names} FROM ratings_before ORDER BY created_at, id")  # noqa: S608
    op.drop_table("ratings_before")


def _fill() -> None:
    """What the votes that are there say of their comparisons, a comparison at a time."""
    connection = op.get_bind()
    texts = ("messages", "left", "right")
    comparisons = sa.table(
        "comparisons", sa.column("id"), sa.column("blind", sa.Boolean), *(sa.column(name, sa.JSON) for name in texts)
    )
    ratings = sa.table("ratings", sa.column("comparison_id"), *_added())
    rated = connection.scalars(sa.select(ratings.c.comparison_id).distinct()).all()
    for comparison_id in rated:
        row = connection.execute(sa.select(comparisons).where(comparisons.c.id == comparison_id)).one()
        facts = compute_facts(row.messages, row.left, row.right)
        change = sa.update(ratings).where(ratings.c.comparison_id == comparison_id)
        connection.execute(change.values(blind=row.blind, **facts.columns()))
