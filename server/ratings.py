"""Owns stored comparisons and votes: writes them, lists them, and keeps a blind comparison blind until it is rated.

Every rating comes out with its whole context: messages, both answers, the versions that gave them, sampling, order,
rater and time. Knows nothing of HTTP beyond the errors it raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from sqlalchemy import and_, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from server.errors import BadRequest, Conflict, NotFound
from server.tables import ComparisonRow, RatingRow, new_id, now_s

Order = Literal["asc", "desc"]
SIDES = ("left", "right")


def comparison_object(row: ComparisonRow, *, reveal: bool) -> dict[str, Any]:
    """The comparison on the wire; model names only when it was not blind, or `reveal` is true."""
    shown = reveal or not row.blind
    return {
        "id": row.id,
        "object": "comparison",
        "created_at": row.created_at,
        "blind": row.blind,
        "messages": row.messages,
        "sampling": row.sampling,
        **{side: getattr(row, side) | ({} if shown else {"model": None}) for side in SIDES},
    }


def rating_object(row: RatingRow) -> dict[str, Any]:
    """The rating on the wire with the comparison it judges, names revealed."""
    comparison = comparison_object(row.comparison, reveal=True)
    preferred = comparison[row.verdict]["model"] if row.verdict in SIDES else None
    return {
        "id": row.id,
        "object": "rating",
        "created_at": row.created_at,
        "comparison_id": row.comparison_id,
        "verdict": row.verdict,
        "preferred_model": preferred,
        "dimensions": row.dimensions,
        "unsafe": row.unsafe,
        "comment": row.comment,
        "rater": row.rater,
        **{key: comparison[key] for key in ("blind", "messages", "sampling", "left", "right")},
    }


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
    row = session.get(ComparisonRow, comparison_id)
    if row is None:
        raise NotFound(
            f"No comparison has the id {comparison_id!r}.", code="comparison_not_found", param="comparison_id"
        )
    return row


def is_rated(session: Session, comparison_id: str) -> bool:
    """Whether anybody voted on it, which is what ends its blindness."""
    return session.scalar(select(RatingRow.id).where(RatingRow.comparison_id == comparison_id).limit(1)) is not None


def add_rating(
    session: Session,
    comparison_id: str,
    *,
    rater: str,
    verdict: str,
    dimensions: dict[str, int],
    unsafe: str | None,
    comment: str | None,
) -> dict[str, Any]:
    """The stored rating.

    Raises:
        NotFound: no such comparison.
        Conflict: that rater voted on it already; votes are never overwritten.
    """
    comparison = get_comparison(session, comparison_id)
    row = RatingRow(
        id=new_id("rating"),
        comparison=comparison,
        created_at=now_s(),
        rater=rater,
        verdict=verdict,
        dimensions=dimensions,
        unsafe=unsafe,
        comment=comment,
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict(
            f"The rater {rater!r} has already rated {comparison_id}; a vote is never overwritten.", code="already_rated"
        ) from error
    return rating_object(row)


def list_ratings(
    session: Session, *, limit: int, after: str | None = None, order: Order = "desc"
) -> tuple[Sequence[RatingRow], bool]:
    """A page of ratings in the order of their making, and whether more follow.

    Raises:
        BadRequest: `after` is no rating's id.
    """
    query = select(RatingRow)
    if after is not None:
        cursor = session.get(RatingRow, after)
        if cursor is None:
            raise BadRequest(
                f"after={after!r} is no rating's id; pass the last id of the page before.",
                param="after",
                code="rating_not_found",
            )
        query = query.where(_beyond(cursor, order))
    rows = session.scalars(query.order_by(*_ordering(order)).limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def all_ratings(session: Session) -> Iterator[RatingRow]:
    """Every rating, oldest first, read in steps so that memory stays bounded."""
    yield from session.scalars(select(RatingRow).order_by(*_ordering("asc")).execution_options(yield_per=500))


def _columns() -> tuple[InstrumentedAttribute[int], InstrumentedAttribute[str]]:
    return RatingRow.created_at, RatingRow.id


def _ordering(order: Order) -> list[Any]:
    return [column.asc() if order == "asc" else column.desc() for column in _columns()]


def _beyond(cursor: RatingRow, order: Order) -> Any:
    created_at, rating_id = _columns()
    if order == "asc":
        return or_(created_at > cursor.created_at, and_(created_at == cursor.created_at, rating_id > cursor.id))
    return or_(created_at < cursor.created_at, and_(created_at == cursor.created_at, rating_id < cursor.id))
