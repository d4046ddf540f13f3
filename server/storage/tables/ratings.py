"""Comparisons and their ratings."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from server.storage.tables.base import BIG, Base


class ComparisonRow(Base):
    """Two to four models' answers, as this server generated them."""

    __tablename__ = "comparisons"
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[int]
    created_by: Mapped[str | None]
    blind: Mapped[bool]
    messages: Mapped[list[Any]]
    """The messages that all models were given; empty if `histories` has each side's own."""
    sampling: Mapped[dict[str, Any]]
    left: Mapped[dict[str, Any]]
    right: Mapped[dict[str, Any]]
    others: Mapped[dict[str, Any] | None]
    """`third` and `fourth` of a comparison of more than two; None for a pair."""
    histories: Mapped[list[Any] | None]
    """Each side's own messages, in the order of the sides, if the conversations have diverged."""
    campaign_id: Mapped[str | None]
    assigned_to: Mapped[str | None]
    """The rater that a campaign assigned it to."""


class RatingRow(Base):
    """One rater's rating of one comparison. Rows are added and never changed: a later one supersedes an earlier.

    The row also has what the statistics need of its comparison, so that they read narrow rows of a single table.
    """

    __tablename__ = "ratings"
    __table_args__ = (
        UniqueConstraint("comparison_id", "rater", "supersedes"),
        Index(None, "created_at"),
        Index(None, "supersedes"),
        Index(None, "rater", "pair_sha"),
        Index(None, "campaign"),
    )

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    comparison_id: Mapped[str] = mapped_column(ForeignKey("comparisons.id"))
    created_at: Mapped[int]
    rater: Mapped[str]
    cast_by: Mapped[str | None]
    """Id of the key or invitation that sent the rating, and alone may change it; None if none was needed."""
    verdict: Mapped[str]
    """`left`, `right`, `tie` or `both_bad`; `withdrawn` if the rater withdrew the rating that this one supersedes."""
    dimensions: Mapped[dict[str, Any]]
    unsafe: Mapped[str | None]
    comment: Mapped[str | None]
    supersedes: Mapped[str] = mapped_column(default="")
    """Id of the same rater's rating that this one replaces; empty for the first. A rating can be replaced only once."""
    names_seen: Mapped[bool] = mapped_column(default=False)
    """Whether the rater had already seen the models' names."""
    blind: Mapped[bool] = mapped_column(default=False)
    """Whether the comparison is blind."""
    campaign: Mapped[str | None]
    left_model: Mapped[str] = mapped_column(default="")
    right_model: Mapped[str] = mapped_column(default="")
    prompt_sha: Mapped[str] = mapped_column(default="")
    """Identifies the prompt; for this and the next three see `arena/ratings/facts.py`."""
    pair_sha: Mapped[str] = mapped_column(default="")
    fault: Mapped[str | None]
    style: Mapped[list[Any] | None]
    comparison: Mapped[ComparisonRow] = relationship(lazy="joined")
