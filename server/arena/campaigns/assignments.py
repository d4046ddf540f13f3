"""Which pair a rater rates next.

    An item is assigned to a rater once at most, and to no more than `raters_per_item` raters.
    Items that others have begun come first, so that raters overlap; otherwise the order is random.
    An open assignment is returned again until it is rated. After `LAPSES_AFTER_S` its place goes to others; a late
    rating is still accepted.

Assignments within a campaign are serialized by a lock on the campaign's row. Ratings don't wait for it.
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
class RaterProgress:
    """One rater's progress in a campaign."""

    done: int
    """Pairs that the rater has rated."""
    remaining: int
    """Pairs that are left for the rater, including an open one."""


def assign(session: Session, campaign: CampaignRow, rater: str, created_by: str | None) -> dict[str, Any]:
    """Return the rater's open pair, or else a new one, as a blind comparison; None if there is none left.

    Raises:
        Conflict: the campaign is closed or failed.
        NotFound: it was deleted meanwhile.
    """
    _lock_campaign(session, campaign, rater)
    if campaign.status not in ("generating", "open"):
        raise Conflict(
            f"The campaign {campaign.name!r} is {campaign.status}, so no more pairs are assigned. POST "
            f"/v1/campaigns/{campaign.id}/reopen reopens it.",
            code=f"campaign_{campaign.status}",
        )
    now = now_s()
    row = _refresh_open(session, campaign.id, rater, now)
    if row is None:
        # Before any item is changed, in the order of ratings: a rating of the lapsed pair may come in just now.
        lapsed = _lock_latest(session, campaign.id, rater, "lapsed")
        _lapse_overdue(session, campaign.id, now)
        row = _resume_lapsed(session, campaign, lapsed, now) or _assign_new(session, campaign, rater, created_by, now)
    session.flush()
    progress = get_progress(session, campaign, rater)
    return {
        "object": "assignment",
        "comparison": comparison_object(row, reveal=False) if row else None,
        "done": progress.done,
        "remaining": progress.remaining,
    }


def update_assignment(session: Session, comparison_id: str, *, rater: str, is_rated: bool) -> None:
    """Update the assignment after the rater has rated the comparison or withdrawn the rating, in that transaction.

    A withdrawn rating frees its place, since a rater who has seen the names can't rate blind. A new rating takes it
    again.
    """
    assignment = session.scalar(
        select(CampaignAssignmentRow)
        .where(CampaignAssignmentRow.comparison_id == comparison_id, CampaignAssignmentRow.rater == rater)
        .with_for_update()
    )
    if assignment is None:
        return
    held_place = assignment.status in ("open", "rated")
    assignment.status = "rated" if is_rated else "withdrawn"
    if change := is_rated - held_place:
        session.execute(
            update(CampaignItemRow)
            .where(CampaignItemRow.number == assignment.item)
            .values(places_taken=CampaignItemRow.places_taken + change)
        )


def get_progress(session: Session, campaign: CampaignRow, rater: str) -> RaterProgress:
    """Return the rater's progress."""
    own = CampaignAssignmentRow.campaign_id == campaign.id, CampaignAssignmentRow.rater == rater
    by_status = select(CampaignAssignmentRow.status, func.count()).where(*own).group_by(CampaignAssignmentRow.status)
    counts = dict(session.execute(by_status).all())
    free = (
        session.scalar(select(func.count()).select_from(CampaignItemRow).where(*items.build_free_conditions(campaign)))
        or 0
    )
    # Lapsed items can be resumed. Selected by number, so that only the rater's own items are read.
    assigned = select(CampaignAssignmentRow.item).where(*own, CampaignAssignmentRow.status != "lapsed")
    still_free = CampaignItemRow.number.in_(assigned), CampaignItemRow.places_taken < campaign.raters_per_item
    used = session.scalar(select(func.count()).select_from(CampaignItemRow).where(*still_free))
    return RaterProgress(counts.get("rated", 0), free - (used or 0) + counts.get("open", 0))


def is_assigned(session: Session, comparison_id: str, campaign_id: str, rater: str) -> bool:
    """Return whether the campaign assigned this comparison to the rater."""
    row = session.get(CampaignAssignmentRow, comparison_id)
    return row is not None and (row.campaign_id, row.rater) == (campaign_id, rater)


def _lock_campaign(session: Session, campaign: CampaignRow, rater: str) -> None:
    """Lock the campaign's row for assignments, and refresh it."""
    query = select(CampaignRow.number).where(CampaignRow.number == campaign.number).with_for_update()
    session.execute(query)  # PostgreSQL waits here, SQLite at the first write
    values = {"asked_at": now_s()}
    update_rater = update(CampaignRaterRow).where(
        CampaignRaterRow.campaign_id == campaign.id, CampaignRaterRow.rater == rater
    )
    if not _execute_update(session, update_rater.values(values)):
        try:
            with session.begin_nested():
                session.add(CampaignRaterRow(campaign_id=campaign.id, rater=rater, **values))
        except IntegrityError:  # another tab of this rater was first
            session.execute(update_rater.values(values))
    session.expire(campaign)
    if session.scalar(query) is None:
        raise NotFound("The campaign has just been deleted.", code="campaign_not_found", param="campaign_id")


def _refresh_open(session: Session, campaign_id: str, rater: str, now: int) -> ComparisonRow | None:
    """Return the rater's open comparison, if any, and restart its time limit."""
    assignment = _lock_latest(session, campaign_id, rater, "open")
    if assignment is None:
        return None
    assignment.assigned_at = now
    return get_comparison(session, assignment.comparison_id)


def _resume_lapsed(
    session: Session, campaign: CampaignRow, lapsed: CampaignAssignmentRow | None, now: int
) -> ComparisonRow | None:
    """Reopen the rater's lapsed assignment if its place is still free."""
    if lapsed is None or items.take_place(session, campaign, CampaignItemRow.number == lapsed.item) is None:
        return None
    lapsed.status, lapsed.assigned_at = "open", now
    return get_comparison(session, lapsed.comparison_id)


def _lock_latest(session: Session, campaign_id: str, rater: str, status: str) -> CampaignAssignmentRow | None:
    """Lock and return the rater's latest assignment with this status."""
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


def _lapse_overdue(session: Session, campaign_id: str, now: int) -> None:
    """Lapse overdue assignments and free their places."""
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


def _assign_new(
    session: Session, campaign: CampaignRow, rater: str, created_by: str | None, now: int
) -> ComparisonRow | None:
    """Assign the next item to this rater, and return its comparison, with the sides in random order."""
    previous = select(CampaignAssignmentRow.comparison_id).where(
        CampaignAssignmentRow.item == CampaignItemRow.number, CampaignAssignmentRow.rater == rater
    )
    item = items.take_place(session, campaign, ~previous.exists())
    if item is None:
        return None
    comparison = items.build_comparison(session, campaign, item, rater, created_by, now)
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


def _execute_update(session: Session, statement: Any) -> int:
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
