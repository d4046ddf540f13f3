"""Owns votes: stores them, lets their raters replace or take them back, and tells which count.

A vote is never changed. A later one of the same rater on the same comparison takes its place by naming it, and a vote
that is taken back is superseded by one that says so. Knows nothing of HTTP beyond the errors it raises.
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
from server.arena.ratings.facts import facts_of
from server.arena.ratings.rights import refuse_foreign_pair, refuse_foreign_vote
from server.storage.database import Database
from server.storage.tables import ComparisonRow, RatingRow, is_id, new_id, now_s
from server.wire.errors import BadRequest, Conflict, NotFound

T = TypeVar("T")

WITHDRAWN = "withdrawn"
CONTEXT = ("blind", "messages", "sampling", *SIDES)
"""What a rating tells of its comparison."""


@dataclass(frozen=True)
class Voter:
    """Whose vote it is, and who brings it."""

    rater: str
    caller: Caller


@dataclass(frozen=True)
class Verdict:
    """What a rater says of two answers."""

    verdict: str
    """`left`, `right`, `tie` or `both_bad`."""
    dimensions: dict[str, Any] = field(default_factory=dict)
    """1 to 5 by name, of each side or of the preferred answer."""
    unsafe: str | None = None
    comment: str | None = None


def add_rating(
    session: Session, comparison_id: str, said: Verdict, *, voter: Voter, supersedes: str | None = None
) -> RatingRow:
    """The stored vote: the rater's first on this comparison, or in the place of `supersedes`.

    Raises:
        NotFound: no such comparison, or `supersedes` is no vote of this rater on it.
        BadRequest: the comparison has more than two sides.
        Conflict: that rater has voted on it, or the vote that is to be superseded has been already; or a campaign gave
            it to another rater.
        Forbidden: the vote that is to be superseded came from another caller; see `rights.py`.
        IntegrityError: somebody else took this vote's place just now; asked again, this says so.
    """
    comparison = get_comparison(session, comparison_id)
    _refuse_more_than_two(comparison)
    refuse_foreign_pair(comparison, voter.rater, voter.caller)
    if supersedes is None:
        _refuse_second(session, comparison_id, voter.rater)
    else:
        _current(session, supersedes, voter, comparison_id)
    return _store(session, comparison, said, voter, supersedes)


def withdraw(session: Session, rating_id: str, *, voter: Voter, window_s: int) -> RatingRow:
    """The entry that takes back this vote. window_s: how many seconds after the vote that can be done.

    Raises:
        NotFound: this rater has no such vote.
        Conflict: it is too late, or the vote was superseded or taken back already.
        Forbidden, IntegrityError: as `add_rating`.
    """
    row = _current(session, rating_id, voter)
    if voter.caller.campaign not in (None, row.campaign):
        raise _missing(rating_id, voter.rater)
    if row.verdict == WITHDRAWN:
        raise Conflict(f"{rating_id} takes back a vote itself. Vote again instead.", code="already_withdrawn")
    age_s = now_s() - row.created_at
    if age_s > window_s:
        raise Conflict(
            f"{rating_id} was cast {age_s} s ago, and a vote can be taken back for {window_s} s. Supersede it with "
            f'another: POST /v1/comparisons/{row.comparison_id}/ratings with "supersedes": "{rating_id}".',
            code="undo_too_late",
        )
    return _store(session, row.comparison, Verdict(WITHDRAWN), voter, rating_id)


def get_rating(session: Session, rating_id: str) -> RatingRow | None:
    """The vote of that id, superseded or not."""
    return session.scalar(select(RatingRow).where(RatingRow.id == rating_id)) if is_id(rating_id) else None


async def write(database: Database, work: Callable[[Session], T]) -> T:
    """The result of `work`, done anew where another vote took the place of this one meanwhile, to tell of that one."""
    try:
        return await database.run(work)
    except IntegrityError:
        return await database.run(work)


def rating_object(row: RatingRow, *, superseded_by: str | None = None, is_duplicate: bool = False) -> dict[str, Any]:
    """The rating on the wire with the comparison it judges, names revealed."""
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
        "discarded": discarded(row.fault, row.verdict, is_duplicate=is_duplicate and superseded_by is None),
        **{key: comparison[key] for key in CONTEXT},
    } | ({"histories": comparison["histories"]} if comparison.get("histories") else {})


def discarded(fault: str | None, verdict: str, *, is_duplicate: bool) -> str | None:
    """Why a vote doesn't count; None for one that does, and for what is no vote."""
    if verdict == WITHDRAWN:
        return None
    return fault or ("duplicate" if is_duplicate else None)


def _store(
    session: Session, comparison: ComparisonRow, said: Verdict, voter: Voter, supersedes: str | None
) -> RatingRow:
    facts = facts_of(comparison.messages, comparison.left, comparison.right, comparison.histories)
    row = RatingRow(
        id=new_id("rating"),
        comparison=comparison,
        created_at=now_s(),
        rater=voter.rater,
        cast_by=voter.caller.key_id,
        verdict=said.verdict,
        dimensions=said.dimensions,
        unsafe=said.unsafe,
        comment=said.comment,
        supersedes=supersedes or "",
        names_seen=supersedes is not None or not _is_blind_still(session, comparison),
        blind=comparison.blind,
        campaign=comparison.campaign_id,
        **facts.columns(),
    )
    session.add(row)
    session.flush()
    if comparison.campaign_id:
        assignments.settle(session, comparison.id, rater=voter.rater, is_rated=said.verdict != WITHDRAWN)
    return row


def _is_blind_still(session: Session, comparison: ComparisonRow) -> bool:
    """Whether nobody can have been shown the names yet. The first vote shows them to whoever knows the comparison, by
    whatever name they vote next; what a campaign gave to one rater is that rater's alone."""
    return comparison.blind and (comparison.assigned_to is not None or not is_rated(session, comparison.id))


def _refuse_more_than_two(comparison: ComparisonRow) -> None:
    if comparison.others:
        raise BadRequest(
            f"{comparison.id} compares {2 + len(comparison.others)} models, and a vote is between two. "
            "Compare the two that you want to vote on.",
            code="not_a_pair",
        )


def _refuse_second(session: Session, comparison_id: str, rater: str) -> None:
    mine = select(RatingRow.id).where(RatingRow.comparison_id == comparison_id, RatingRow.rater == rater)
    ids = set(session.scalars(mine))
    if ids:
        replaced = session.scalars(select(RatingRow.supersedes).where(RatingRow.id.in_(ids)))
        (current,) = ids - set(replaced)
        raise Conflict(
            f"The rater {rater!r} has already rated {comparison_id}, as {current}; a vote is never overwritten. To put "
            f'another in its place, send "supersedes": "{current}" with it.',
            code="already_rated",
        )


def _current(session: Session, rating_id: str, voter: Voter, comparison_id: str | None = None) -> RatingRow:
    """This voter's vote of that id, which nothing has superseded yet."""
    row = get_rating(session, rating_id)
    if row is None or row.rater != voter.rater or comparison_id not in (None, row.comparison_id):
        raise _missing(rating_id, voter.rater, comparison_id)
    refuse_foreign_vote(row, voter.caller)
    newer = session.execute(
        select(RatingRow.id, RatingRow.verdict).where(RatingRow.supersedes == rating_id).limit(1)
    ).first()
    if newer is not None:
        how = "taken back by" if newer.verdict == WITHDRAWN else "superseded by"
        raise Conflict(
            f'{rating_id} was already {how} {newer.id}. To vote anew, send "supersedes": "{newer.id}".',
            code="already_superseded",
        )
    return row


def _missing(rating_id: str, rater: str, comparison_id: str | None = None) -> NotFound:
    where = f" on {comparison_id}" if comparison_id else ""
    return NotFound(
        f"The rater {rater!r} has no vote {rating_id[:200]!r}{where}. GET /v1/ratings?rater=… lists them.",
        code="rating_not_found",
    )
