"""Stored comparisons: writing and reading them; a blind one stays blind until it is rated."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.storage.tables import ComparisonRow, RatingRow, is_id
from server.wire.errors import NotFound

SIDES = ("left", "right")
"""The sides that a rating is about."""
ALL_SIDES = (*SIDES, "third", "fourth")
"""In the order of the requested models."""


def comparison_object(row: ComparisonRow, *, reveal: bool) -> dict[str, Any]:
    """Return the comparison as the API's object, with model names only if it isn't blind or `reveal` is set.

    `messages` is what all models were given, or null if `histories` has each side's own.
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
        **{name: side | ({} if shown else {"model": None}) for name, side in get_sides(row).items()},
    }


def get_sides(row: ComparisonRow) -> dict[str, dict[str, Any]]:
    """Return side → answer, in the order of the sides."""
    return {"left": row.left, "right": row.right, **(row.others or {})}


def add_comparison(session: Session, row: ComparisonRow) -> dict[str, Any]:
    """Store the comparison and return it as its creator may see it."""
    session.add(row)
    session.flush()
    return comparison_object(row, reveal=False)


def get_comparison(session: Session, comparison_id: str) -> ComparisonRow:
    """Return the comparison with that id.

    Raises:
        NotFound: it doesn't exist.
    """
    row = session.get(ComparisonRow, comparison_id) if is_id(comparison_id) else None
    if row is None:
        raise NotFound(
            f"There is no comparison with the id {comparison_id[:200]!r}. Check the id.",
            code="comparison_not_found",
            param="comparison_id",
        )
    return row


def is_rated(session: Session, comparison_id: str) -> bool:
    """Return whether anyone has rated it, which ends its blindness."""
    return session.scalar(select(RatingRow.id).where(RatingRow.comparison_id == comparison_id).limit(1)) is not None
