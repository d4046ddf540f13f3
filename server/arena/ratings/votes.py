"""Stores ratings, supersedes and withdraws them, and decides which count.

A rating is never changed. A later one by the same rater on the same comparison supersedes it by its id, and a withdrawn
rating is superseded by one with the verdict `withdrawn`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from server.access.keys import Caller
from server.arena.campaigns import assignments
from server.arena.comparisons.store import SIDES, comparison_object, get_comparison, is_rated
from server.arena.ratings.facts import compute_facts
from server.arena.ratings.rights import refuse_foreign_pair, refuse_foreign_rating
from server.storage.database import Database
from server.storage.tables import ComparisonRow, RatingRow, is_id, new_id, now_s
from server.wire.errors import BadRequest, Conflict, NotFound

T = TypeVar("T")

WITHDRAWN = "withdrawn"
CONTEXT = ("blind", "messages", "sampling", *SIDES)
"""Fields of the comparison that are part of a rating's object."""


@dataclass(frozen=True)
class RatingAuthor:
    """The rater, and the caller who sends the rating."""

    rater: str
    caller: Caller


@dataclass(frozen=True)
class RatingContent:
    """The content of a rating of two answers."""

    verdict: str
    """`left`, `right`, `tie` or `both_bad`."""
    dimensions: dict[str, Any] = field(default_factory=dict)
    """Scores from 1 to 5 by dimension, for each side or for the preferred answer."""
    unsafe: str | None = None
    comment: str | None = None


def add_rating(
    session: Session, comparison_id: str, content: RatingContent, *, author: RatingAuthor, supersedes: str | None = None
) -> RatingRow:
    """Store a rating: the rater's first of this comparison, or one that supersedes another.

    Raises:
        NotFound: there is no such comparison, or `supersedes` isn't a rating of it by this rater.
        BadRequest: the comparison has more than two sides.
        Conflict: the rater has already rated it, or the rating to supersede has been superseded; or a campaign assigned
            it to another rater.
        Forbidden: the rating to supersede was sent by another caller; see `rights.py`.
        IntegrityError: the rating was superseded by another just now; a retry raises Conflict.
    """
    comparison = get_comparison(session, comparison_id)
    _refuse_more_than_two(comparison)
    refuse_foreign_pair(comparison, author.rater, author.caller)
    if supersedes is None:
        _refuse_second_rating(session, comparison_id, author.rater)
    else:
        _get_current(session, supersedes, author, comparison_id)
    return _store_rating(session, comparison, content, author, supersedes)


def withdraw(session: Session, rating_id: str, *, author: RatingAuthor, window_s: int) -> RatingRow:
    """Withdraw this rating; return the row that does so. window_s: seconds after the rating in which this is possible.

    Raises:
        NotFound: this rater has no such rating.
        Conflict: it is too late, or the rating has already been superseded or withdrawn.
        Forbidden, IntegrityError: as `add_rating`.
    """
    row = _get_current(session, rating_id, author)
    if author.caller.campaign not in (None, row.campaign):
        raise _rating_not_found_error(rating_id, author.rater)
    if row.verdict == WITHDRAWN:
        raise Conflict(
            f"{rating_id} is itself a withdrawal, which can't be undone. Rate again instead.", code="already_withdrawn"
        )
    age_s = now_s() - row.created_at
    if age_s > window_s:
        raise Conflict(
            f"{rating_id} is {age_s} s old, but a rating can only be withdrawn for {window_s} s. Replace it with a "
            f'new one: POST /v1/comparisons/{row.comparison_id}/ratings with "supersedes": "{rating_id}".',
            code="undo_too_late",
        )
    return _store_rating(session, row.comparison, RatingContent(WITHDRAWN), author, rating_id)


def get_rating(session: Session, rating_id: str) -> RatingRow | None:
    """Return the rating with that id, superseded or not."""
    return session.scalar(select(RatingRow).where(RatingRow.id == rating_id)) if is_id(rating_id) else None


async def run_with_retry(database: Database, work: Callable[[Session], T]) -> T:
    """Run `work` in a transaction; retry once if another rating was stored meanwhile, to get the right error."""
    try:
        return await database.run(work)
    except IntegrityError:
        return await database.run(work)


def rating_object(row: RatingRow, *, superseded_by: str | None = None, is_duplicate: bool = False) -> dict[str, Any]:
    """Return the rating as the API's object, with its comparison and the models' names."""
    comparison = comparison_object(row.comparison, reveal=True)
    preferred = comparison[row.verdict]["model"] if row.verdict in SIDES else None
    return {
        "id": row.id,
        "object": "rating",
        "created_at": row.created_at,
        "comparison_id": row.comparison_id,
        "campaign": row.campaign,
        "verdict": row.verdict,
        "preferred_model": preferred,
        "dimensions": row.dimensions,
        "unsafe": row.unsafe,
        "comment": row.comment,
        "rater": row.rater,
        "names_seen": row.names_seen,
        "supersedes": row.supersedes or None,
        "superseded_by": superseded_by,
        "discarded": find_discard_reason(row.fault, row.verdict, is_duplicate=is_duplicate and superseded_by is None),
        **{key: comparison[key] for key in CONTEXT},
    } | ({"histories": comparison["histories"]} if comparison.get("histories") else {})


def find_discard_reason(fault: str | None, verdict: str, *, is_duplicate: bool) -> str | None:
    """Return why a rating doesn't count; None if it does, or is a withdrawal."""
    if verdict == WITHDRAWN:
        return None
    return fault or ("duplicate" if is_duplicate else None)


def _store_rating(
    session: Session, comparison: ComparisonRow, content: RatingContent, author: RatingAuthor, supersedes: str | None
) -> RatingRow:
    facts = compute_facts(comparison.messages, comparison.left, comparison.right, comparison.histories)
    row = RatingRow(
        id=new_id("rating"),
        comparison=comparison,
        created_at=now_s(),
        rater=author.rater,
        cast_by=author.caller.key_id,
        verdict=content.verdict,
        dimensions=content.dimensions,
        unsafe=content.unsafe,
        comment=content.comment,
        supersedes=supersedes or "",
        names_seen=supersedes is not None or not _is_still_blind(session, comparison),
        blind=comparison.blind,
        campaign=comparison.campaign_id,
        **facts.to_columns(),
    )
    session.add(row)
    session.flush()
    if comparison.campaign_id:
        assignments.update_assignment(session, comparison.id, rater=author.rater, is_rated=content.verdict != WITHDRAWN)
    return row


def _is_still_blind(session: Session, comparison: ComparisonRow) -> bool:
    """Return whether nobody can have seen the names. The first rating reveals them to anyone who knows the comparison,
    under whatever rater name they rate next; a campaign's comparison is known to its one rater only."""
    return comparison.blind and (comparison.assigned_to is not None or not is_rated(session, comparison.id))


def _refuse_more_than_two(comparison: ComparisonRow) -> None:
    if comparison.others:
        raise BadRequest(
            f"{comparison.id} compares {2 + len(comparison.others)} models, but a rating is between two. Compare "
            "the two models that you want to rate.",
            code="not_a_pair",
        )


def _refuse_second_rating(session: Session, comparison_id: str, rater: str) -> None:
    own = select(RatingRow.id).where(RatingRow.comparison_id == comparison_id, RatingRow.rater == rater)
    ids = set(session.scalars(own))
    if ids:
        replaced = session.scalars(select(RatingRow.supersedes).where(RatingRow.id.in_(ids)))
        (current,) = ids - set(replaced)
        raise Conflict(
            f"The rater {rater!r} has already rated {comparison_id}, as {current}; ratings are never overwritten. "
            f'To replace it, send "supersedes": "{current}" with the new rating.',
            code="already_rated",
        )


def _get_current(session: Session, rating_id: str, author: RatingAuthor, comparison_id: str | None = None) -> RatingRow:
    """Return this author's rating with that id, checking that nothing has superseded it."""
    row = get_rating(session, rating_id)
    if row is None or row.rater != author.rater or comparison_id not in (None, row.comparison_id):
        raise _rating_not_found_error(rating_id, author.rater, comparison_id)
    refuse_foreign_rating(row, author.caller)
    newer = session.execute(
        select(RatingRow.id, RatingRow.verdict).where(RatingRow.supersedes == rating_id).limit(1)
    ).first()
    if newer is not None:
        how = "withdrawn by" if newer.verdict == WITHDRAWN else "superseded by"
        raise Conflict(
            f'{rating_id} was already {how} {newer.id}. To rate again, send "supersedes": "{newer.id}".',
            code="already_superseded",
        )
    return row


def _rating_not_found_error(rating_id: str, rater: str, comparison_id: str | None = None) -> NotFound:
    where = f" on {comparison_id}" if comparison_id else ""
    return NotFound(
        f"The rater {rater!r} has no rating {rating_id[:200]!r}{where}. GET /v1/ratings?rater=… lists their ratings.",
        code="rating_not_found",
    )
