"""Reads ratings: single ones, pages, or columns of all current ones.

Which ratings are current, and which are duplicates, is computed from the ratings at query time: when a rating is
withdrawn, its duplicate counts instead. Duplicates are relative to the selected ratings: a repeated campaign counts by
itself, but only once among all ratings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from server.arena.ratings.votes import WITHDRAWN, get_rating, rating_object
from server.storage.tables import RatingRow
from server.wire.errors import BadRequest

Order = Literal["asc", "desc"]


@dataclass(frozen=True)
class RatingFilter:
    """Which ratings to select; all by default."""

    campaign: str | None = None
    rater: str | None = None
    model: str | None = None
    """One of the two compared models."""
    blind_only: bool = False
    """Only ratings whose rater hadn't seen the models' names."""
    current_only: bool = False
    """Without superseded and withdrawn ratings."""
    after_s: int | None = None
    """Unix time, inclusive."""
    before_s: int | None = None
    """Unix time, exclusive."""

    def build_conditions(self, row: Any = RatingRow) -> list[ColumnElement[bool]]:
        """Return the conditions for the selected rows. row: the table, or an alias of it."""
        optional: list[tuple[Any, ColumnElement[bool]]] = [
            (self.campaign is not None, row.campaign == self.campaign),
            (self.rater is not None, row.rater == self.rater),
            (self.model is not None, or_(row.left_model == self.model, row.right_model == self.model)),
            (self.blind_only, and_(row.blind, ~row.names_seen)),
            (self.current_only, is_current(row)),
            (self.after_s is not None, row.created_at >= (self.after_s or 0)),
            (self.before_s is not None, row.created_at < (self.before_s or 0)),
        ]
        return [condition for is_set, condition in optional if is_set]


def is_current(row: Any = RatingRow) -> ColumnElement[bool]:
    """Return the condition for current ratings: neither superseded nor withdrawn."""
    newer = aliased(RatingRow)
    return and_(row.verdict != WITHDRAWN, ~exists().where(newer.supersedes == row.id))


def select_superseding_id() -> Any:
    """Return a column with the id of the rating that supersedes this one."""
    newer = aliased(RatingRow)
    return select(newer.id).where(newer.supersedes == RatingRow.id).scalar_subquery()


def is_duplicate(among: RatingFilter) -> ColumnElement[bool]:
    """Return the condition for ratings whose rater has an earlier one of the same two answers to the same prompt.

    among: which earlier ratings are considered; never those that aren't current or are faulty themselves.
    """
    earlier = aliased(RatingRow)
    return exists().where(
        earlier.rater == RatingRow.rater,
        earlier.pair_sha == RatingRow.pair_sha,
        earlier.number < RatingRow.number,
        earlier.fault.is_(None),
        *replace(among, current_only=True).build_conditions(earlier),
    )


def list_ratings(
    session: Session,
    rating_filter: RatingFilter,
    *,
    limit: int,
    after: str | None = None,
    order: Order = "desc",
    among: RatingFilter | None = None,
) -> tuple[list[dict[str, Any]], bool]:
    """Return a page of ratings in the order of creation, and whether there are more.

    among: the ratings that others may be duplicates of; default: those that match `rating_filter`.

    Raises:
        BadRequest: `after` isn't the id of a rating.
    """
    query = select(RatingRow, select_superseding_id(), is_duplicate(among or rating_filter)).where(
        *rating_filter.build_conditions()
    )
    if after is not None:
        reached = _get_cursor_row(session, after).number
        query = query.where(RatingRow.number > reached if order == "asc" else RatingRow.number < reached)
    number = RatingRow.number
    rows = session.execute(query.order_by(number if order == "asc" else number.desc()).limit(limit + 1)).all()
    objects = [rating_object(row, superseded_by=newer, is_duplicate=repeats) for row, newer, repeats in rows[:limit]]
    return objects, len(rows) > limit


def read_rating_object(session: Session, row: RatingRow) -> dict[str, Any]:
    """Return one rating as the API's object; `discarded` is as in a list of all ratings."""
    query = select(select_superseding_id(), is_duplicate(RatingFilter())).where(RatingRow.id == row.id)
    newer, repeats = session.execute(query).one()
    return rating_object(row, superseded_by=newer, is_duplicate=repeats)


def read_columns(session: Session, rating_filter: RatingFilter, *columns: Any) -> list[Sequence[Any]]:
    """Return these columns of the current ratings, oldest first."""
    query = select(*columns).where(*rating_filter.build_conditions(), is_current()).order_by(RatingRow.number)
    return [list(column) for column in zip(*session.execute(query), strict=True)] or [[] for _ in columns]


def count_ratings(session: Session) -> int:
    """Return the number of all ratings. As rows are only added, an equal count means equal ratings."""
    return session.scalar(select(func.count()).select_from(RatingRow)) or 0


def _get_cursor_row(session: Session, after: str) -> RatingRow:
    row = get_rating(session, after)
    if row is None:
        raise BadRequest(
            f"after={after[:200]!r} isn't a rating's id. Pass the last id of the previous page.",
            param="after",
            code="rating_not_found",
        )
    return row
