"""Which pair a rater judges next, and what becomes of its place.

    An item is given to a rater once at most, and to no more raters than the campaign wants judgements of it.
    Items that somebody has begun come first, so that raters overlap; among those, and then, a random order decides.
    What a rater has open comes again until it is judged. Left lying for `LAPSES_AFTER_S`, its place goes to others;
    the vote is taken all the same.

Assignments of one campaign are made one after another: the campaign's row is the lock. Votes don't wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from server.arena.campaigns import items
from server.arena.comparisons.store import comparison_object, get_comparison
from server.storage.tables import (
    CampaignAssignmentRow,
    CampaignItemRow,
    CampaignRaterRow,
    CampaignRow,
    ComparisonRow,
    now_s,
)
from server.wire.errors import Conflict, NotFound

LAPSES_AFTER_S = 600


@dataclass(frozen=True)
class Standing:
    """How far one rater is in a campaign."""

    done: int
    """Pairs that the rater has judged."""
    remaining: int
    """Pairs that are there for the rater, one that is open included."""


def assign(session: Session, campaign: CampaignRow, rater: str, created_by: str | None) -> dict[str, Any]:
    """The rater's open pair, or else a new one, blind; None where there is none left for this rater.

    Raises:
        Conflict: the campaign is closed or failed.
        NotFound: it was deleted meanwhile.
    """
    _lock(session, campaign, rater)
    if campaign.status not in ("generating", "open"):
        raise Conflict(
            f"The campaign {campaign.name!r} is {campaign.status}, so no more pairs are given out. "
            f"POST /v1/campaigns/{campaign.id}/reopen opens it again.",
            code=f"campaign_{campaign.status}",
        )
    now = now_s()
    row = _open(session, campaign.id, rater, now)
    if row is None:
        # Before any item is changed, as votes do it: a vote on what was left lying may come in just now.
        lying = _latest(session, campaign.id, rater, "lapsed")
        _lapse(session, campaign.id, now)
        row = _taken_up_again(session, campaign, lying, now) or _new(session, campaign, rater, created_by, now)
    session.flush()
    counted = standing(session, campaign, rater)
    return {
        "object": "assignment",
        "comparison": comparison_object(row, reveal=False) if row else None,
        "done": counted.done,
        "remaining": counted.remaining,
    }


def settle(session: Session, comparison_id: str, *, rater: str, is_rated: bool) -> None:
    """Says that the rater has voted on the comparison, or has withdrawn the vote. In the vote's transaction.

    Of a withdrawn vote the place is free again: whoever has seen the names can't judge blind. A new vote takes it.
    """
    assignment = session.scalar(
        select(CampaignAssignmentRow)
        .where(CampaignAssignmentRow.comparison_id == comparison_id, CampaignAssignmentRow.rater == rater)
        .with_for_update()
    )
    if assignment is None:
        return
    held = assignment.status in ("open", "rated")
    assignment.status = "rated" if is_rated else "withdrawn"
    if change := is_rated - held:
        session.execute(
            update(CampaignItemRow)
            .where(CampaignItemRow.number == assignment.item)
            .values(places_taken=CampaignItemRow.places_taken + change)
        )


def standing(session: Session, campaign: CampaignRow, rater: str) -> Standing:
    """How far the rater is."""
    mine = CampaignAssignmentRow.campaign_id == campaign.id, CampaignAssignmentRow.rater == rater
    by_status = select(CampaignAssignmentRow.status, func.count()).where(*mine).group_by(CampaignAssignmentRow.status)
    counts = dict(session.execute(by_status).all())
    free = session.scalar(select(func.count()).select_from(CampaignItemRow).where(*items.free(campaign))) or 0
    # What lapsed is there to be taken up again. Asked by number, so that only the rater's own items are looked at.
    had = select(CampaignAssignmentRow.item).where(*mine, CampaignAssignmentRow.status != "lapsed")
    still_free = CampaignItemRow.number.in_(had), CampaignItemRow.places_taken < campaign.raters_per_item
    used = session.scalar(select(func.count()).select_from(CampaignItemRow).where(*still_free))
    return Standing(counts.get("rated", 0), free - (used or 0) + counts.get("open", 0))


def is_assigned(session: Session, comparison_id: str, campaign_id: str, rater: str) -> bool:
    """Whether the campaign gave this comparison to the rater."""
    row = session.get(CampaignAssignmentRow, comparison_id)
    return row is not None and (row.campaign_id, row.rater) == (campaign_id, rater)


def _lock(session: Session, campaign: CampaignRow, rater: str) -> None:
    """Returns when nobody else assigns in this campaign; the row is then as it is now."""
    query = select(CampaignRow.number).where(CampaignRow.number == campaign.number).with_for_update()
    session.execute(query)  # PostgreSQL waits here, SQLite where it first writes
    asked = {"asked_at": now_s()}
    mine = update(CampaignRaterRow).where(CampaignRaterRow.campaign_id == campaign.id, CampaignRaterRow.rater == rater)
    if not _changed(session, mine.values(asked)):
        try:
            with session.begin_nested():
                session.add(CampaignRaterRow(campaign_id=campaign.id, rater=rater, **asked))
        except IntegrityError:  # the other tab was first
            session.execute(mine.values(asked))
    session.expire(campaign)
    if session.scalar(query) is None:
        raise NotFound("The campaign was deleted just now.", code="campaign_not_found", param="campaign_id")


def _open(session: Session, campaign_id: str, rater: str, now: int) -> ComparisonRow | None:
    """What the rater has before them already, its place held from now on again."""
    assignment = _latest(session, campaign_id, rater, "open")
    if assignment is None:
        return None
    assignment.assigned_at = now
    return get_comparison(session, assignment.comparison_id)


def _taken_up_again(
    session: Session, campaign: CampaignRow, lying: CampaignAssignmentRow | None, now: int
) -> ComparisonRow | None:
    """What the rater had left lying, where nobody has taken its place."""
    if lying is None or items.take(session, campaign, CampaignItemRow.number == lying.item) is None:
        return None
    lying.status, lying.assigned_at = "open", now
    return get_comparison(session, lying.comparison_id)


def _latest(session: Session, campaign_id: str, rater: str, status: str) -> CampaignAssignmentRow | None:
    """The rater's latest in this state, locked."""
    return session.scalar(
        select(CampaignAssignmentRow)
        .where(
            CampaignAssignmentRow.campaign_id == campaign_id,
            CampaignAssignmentRow.rater == rater,
            CampaignAssignmentRow.status == status,
        )
        .order_by(CampaignAssignmentRow.assigned_at.desc())
        .limit(1)
        .with_for_update()
    )


def _lapse(session: Session, campaign_id: str, now: int) -> None:
    """Frees the places of what was left lying."""
    lapsed = (
        update(CampaignAssignmentRow)
        .where(
            CampaignAssignmentRow.campaign_id == campaign_id,
            CampaignAssignmentRow.status == "open",
            CampaignAssignmentRow.assigned_at < now - LAPSES_AFTER_S,
        )
        .values(status="lapsed")
        .returning(CampaignAssignmentRow.item)
    )
    for item in session.scalars(lapsed).all():
        session.execute(
            update(CampaignItemRow)
            .where(CampaignItemRow.number == item)
            .values(places_taken=CampaignItemRow.places_taken - 1)
        )


def _new(session: Session, campaign: CampaignRow, rater: str, created_by: str | None, now: int) -> ComparisonRow | None:
    """A comparison of the item that comes next for this rater, in random order."""
    had = select(CampaignAssignmentRow.comparison_id).where(
        CampaignAssignmentRow.item == CampaignItemRow.number, CampaignAssignmentRow.rater == rater
    )
    item = items.take(session, campaign, ~had.exists())
    if item is None:
        return None
    comparison = items.comparison_of(session, campaign, item, rater, created_by, now)
    session.add(comparison)
    session.add(
        CampaignAssignmentRow(
            comparison_id=comparison.id,
            campaign_id=campaign.id,
            item=item.number,
            rater=rater,
            status="open",
            assigned_at=now,
        )
    )
    return comparison


def _changed(session: Session, statement: Any) -> int:
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
