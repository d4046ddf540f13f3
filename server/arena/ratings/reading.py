"""Reads votes: one, pages of them, or columns of all that stand. Changes nothing.

Which votes are current and which repeat an earlier one is worked out here from the votes themselves, at the time of
asking: a vote that is taken back gives its place to what had been a duplicate of it. A repetition is one among the
votes that are asked for: a campaign that is held again counts anew by itself, and once where all votes are counted.
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
class Wanted:
    """Which votes are asked for; everything by default."""

    campaign: str | None = None
    rater: str | None = None
    model: str | None = None
    """One of the two that were compared."""
    blind_only: bool = False
    """Only votes whose rater had not been shown the models' names."""
    current_only: bool = False
    """Without what was superseded or taken back."""
    after_s: int | None = None
    """Unix time; votes of that second are among them."""
    before_s: int | None = None
    """Unix time; votes of that second are not among them."""

    def conditions(self, row: Any = RatingRow) -> list[ColumnElement[bool]]:
        """What holds for the rows that are wanted. row: the table, or an alias of it."""
        given: list[tuple[Any, ColumnElement[bool]]] = [
            (self.campaign is not None, row.campaign == self.campaign),
            (self.rater is not None, row.rater == self.rater),
            (self.model is not None, or_(row.left_model == self.model, row.right_model == self.model)),
            (self.blind_only, and_(row.blind, ~row.names_seen)),
            (self.current_only, is_current(row)),
            (self.after_s is not None, row.created_at >= (self.after_s or 0)),
            (self.before_s is not None, row.created_at < (self.before_s or 0)),
        ]
        return [condition for asked, condition in given if asked]


def is_current(row: Any = RatingRow) -> ColumnElement[bool]:
    """The condition of a vote that stands: neither superseded nor taken back."""
    newer = aliased(RatingRow)
    return and_(row.verdict != WITHDRAWN, ~exists().where(newer.supersedes == row.id))


def superseded_by() -> Any:
    """The id of the vote in whose place another stands, as a column."""
    newer = aliased(RatingRow)
    return select(newer.id).where(newer.supersedes == RatingRow.id).scalar_subquery()


def is_duplicate(among: Wanted) -> ColumnElement[bool]:
    """The condition of a vote whose rater has an earlier one on the same two answers to the same prompt.

    among: which votes the earlier may be; never one that doesn't stand or is at fault itself.
    """
    earlier = aliased(RatingRow)
    return exists().where(
        earlier.rater == RatingRow.rater,
        earlier.pair_sha == RatingRow.pair_sha,
        earlier.number < RatingRow.number,
        earlier.fault.is_(None),
        *replace(among, current_only=True).conditions(earlier),
    )


def list_ratings(
    session: Session,
    wanted: Wanted,
    *,
    limit: int,
    after: str | None = None,
    order: Order = "desc",
    among: Wanted | None = None,
) -> tuple[list[dict[str, Any]], bool]:
    """A page of ratings in the order of their making, and whether more follow.

    among: the votes of which a later one may be a duplicate; by default those that are wanted.

    Raises:
        BadRequest: `after` is no rating's id.
    """
    query = select(RatingRow, superseded_by(), is_duplicate(among or wanted)).where(*wanted.conditions())
    if after is not None:
        reached = _cursor(session, after).number
        query = query.where(RatingRow.number > reached if order == "asc" else RatingRow.number < reached)
    number = RatingRow.number
    rows = session.execute(query.order_by(number if order == "asc" else number.desc()).limit(limit + 1)).all()
    shown = [rating_object(row, superseded_by=newer, is_duplicate=repeats) for row, newer, repeats in rows[:limit]]
    return shown, len(rows) > limit


def shown(session: Session, row: RatingRow) -> dict[str, Any]:
    """One vote on the wire; whether it is a duplicate is told as in a list of all votes."""
    about = select(superseded_by(), is_duplicate(Wanted())).where(RatingRow.id == row.id)
    newer, repeats = session.execute(about).one()
    return rating_object(row, superseded_by=newer, is_duplicate=repeats)


def read_columns(session: Session, wanted: Wanted, *columns: Any) -> list[Sequence[Any]]:
    """Of the votes that stand, oldest first, a row of these columns each."""
    query = select(*columns).where(*wanted.conditions(), is_current()).order_by(RatingRow.number)
    return [list(column) for column in zip(*session.execute(query), strict=True)] or [[] for _ in columns]


def count_ratings(session: Session) -> int:
    """How many there are of all kinds. As rows are only added, an equal count means equal votes."""
    return session.scalar(select(func.count()).select_from(RatingRow)) or 0


def _cursor(session: Session, after: str) -> RatingRow:
    row = get_rating(session, after)
    if row is None:
        raise BadRequest(
            f"after={after[:200]!r} is no rating's id; pass the last id of the page before.",
            param="after",
            code="rating_not_found",
        )
    return row
