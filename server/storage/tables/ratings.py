"""Comparisons and the votes on them."""

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
    """What all of them were asked; empty where `histories` says what each was."""
    sampling: Mapped[dict[str, Any]]
    left: Mapped[dict[str, Any]]
    right: Mapped[dict[str, Any]]
    others: Mapped[dict[str, Any] | None]
    """`third` and `fourth` of a comparison of more than two; None for a pair."""
    histories: Mapped[list[Any] | None]
    """Each side's own messages, in the order of the sides, of conversations that went apart."""
    campaign_id: Mapped[str | None]
    assigned_to: Mapped[str | None]
    """The rater whom a campaign gave it to."""


class RatingRow(Base):
    """One rater's verdict on one comparison. Rows are added and never changed: a later one supersedes an earlier.

    Beside the vote stands what the statistics need of its comparison, so that they read narrow rows of one table.
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
    """Id of the key or of the invitation that the vote came with, which alone may change it; None where nobody needed
    one."""
    verdict: Mapped[str]
    """`left`, `right`, `tie` or `both_bad`; `withdrawn` where the rater took back the vote that this one supersedes."""
    dimensions: Mapped[dict[str, Any]]
    unsafe: Mapped[str | None]
    comment: Mapped[str | None]
    supersedes: Mapped[str] = mapped_column(default="")
    """Id of the same rater's vote whose place it takes; empty for the first. Two can't take the same place."""
    names_seen: Mapped[bool] = mapped_column(default=False)
    """Whether the rater had been shown the models' names by then."""
    blind: Mapped[bool] = mapped_column(default=False)
    """Whether the comparison is blind."""
    campaign: Mapped[str | None]
    left_model: Mapped[str] = mapped_column(default="")
    right_model: Mapped[str] = mapped_column(default="")
    prompt_sha: Mapped[str] = mapped_column(default="")
    """Tells prompts apart; see `arena/ratings/facts.py`, as for the next three."""
    pair_sha: Mapped[str] = mapped_column(default="")
    fault: Mapped[str | None]
    style: Mapped[list[Any] | None]
    comparison: Mapped[ComparisonRow] = relationship(lazy="joined")
