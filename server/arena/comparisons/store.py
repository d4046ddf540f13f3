"""Owns stored comparisons: writes them, reads them, and keeps a blind one blind until it is rated.

Knows nothing of HTTP beyond the errors it raises.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.storage.tables import ComparisonRow, RatingRow, is_id
from server.wire.errors import NotFound

SIDES = ("left", "right")
"""What a vote can be about."""
ALL_SIDES = (*SIDES, "third", "fourth")
"""In the order of the models that were asked for."""


def comparison_object(row: ComparisonRow, *, reveal: bool) -> dict[str, Any]:
    """The comparison on the wire; model names only when it was not blind, or `reveal` is true.

    `messages` is what all were asked, or null where `histories` has each side's own.
    """
    shown = reveal or not row.blind
    return {
        "id": row.id,
        "object": "comparison",
        "created_at": row.created_at,
        "blind": row.blind,
        "messages": None if row.histories else row.messages,
        "histories": row.histories,
        "sampling": row.sampling,
        "campaign": row.campaign_id,
        **{name: side | ({} if shown else {"model": None}) for name, side in sides_of(row).items()},
    }


def sides_of(row: ComparisonRow) -> dict[str, dict[str, Any]]:
    """Every answer with the name of its side, in the order of the sides."""
    return {"left": row.left, "right": row.right, **(row.others or {})}


def add_comparison(session: Session, row: ComparisonRow) -> dict[str, Any]:
    """The stored comparison as its creator may see it."""
    session.add(row)
    session.flush()
    return comparison_object(row, reveal=False)


def get_comparison(session: Session, comparison_id: str) -> ComparisonRow:
    """The comparison of that id.

    Raises:
        NotFound: there is none.
    """
    row = session.get(ComparisonRow, comparison_id) if is_id(comparison_id) else None
    if row is None:
        raise NotFound(
            f"No comparison has the id {comparison_id[:200]!r}.", code="comparison_not_found", param="comparison_id"
        )
    return row


def is_rated(session: Session, comparison_id: str) -> bool:
    """Whether anybody voted on it, which is what ends its blindness."""
    return session.scalar(select(RatingRow.id).where(RatingRow.comparison_id == comparison_id).limit(1)) is not None
