"""A campaign on the wire, with how far it is. Counts; changes nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.storage.tables import CampaignAnswerRow, CampaignAssignmentRow, CampaignItemRow, CampaignRow, now_s

_LATEST = 50
"""So many answers that came last say how fast they come."""


def campaign_object(session: Session, row: CampaignRow) -> dict[str, Any]:
    """The campaign with its counts."""
    answers = _answers(session, row)
    items, left_out = _items(session, row)
    raters = _raters(session, row)
    return {
        "id": row.id,
        "object": "campaign",
        "created_at": row.created_at,
        "name": row.name,
        "status": row.status,
        "error": row.error,
        "models": row.models,
        "prompts": row.prompts,
        "answers": answers,
        "votes": {"done": sum(raters.values()), "total": items * row.raters_per_item},
        "raters_per_item": row.raters_per_item,
        "items": items,
        "items_left_out": left_out,
        "sampling": row.sampling,
        "dimensions": row.dimensions,
        "blind": True,
        "raters": [{"rater": rater, "votes": votes} for rater, votes in raters.items()],
        "estimated_finish": _estimated_finish(session, row, answers),
        "closed_at": row.closed_at,
        "created_by": row.created_by,
    }


def _answers(session: Session, row: CampaignRow) -> dict[str, int]:
    counted = (
        select(CampaignAnswerRow.status, func.count())
        .where(CampaignAnswerRow.campaign_id == row.id)
        .group_by(CampaignAnswerRow.status)
    )
    counts = dict(session.execute(counted).all())
    return {"done": counts.get("done", 0), "total": sum(counts.values()), "failed": counts.get("failed", 0)}


def _items(session: Session, row: CampaignRow) -> tuple[int, int]:
    """How many pairs are or will be there to be judged, and how many are left out because an answer failed."""
    is_left_out = CampaignItemRow.answers < 0
    counted = select(is_left_out, func.count()).where(CampaignItemRow.campaign_id == row.id).group_by(is_left_out)
    counts = {bool(left_out): number for left_out, number in session.execute(counted)}
    return counts.get(False, 0), counts.get(True, 0)


def _raters(session: Session, row: CampaignRow) -> dict[str, int]:
    """Votes in force of each rater who was given a pair, the most first."""
    is_rated = CampaignAssignmentRow.status == "rated"
    counted = (
        select(CampaignAssignmentRow.rater, is_rated, func.count())
        .where(CampaignAssignmentRow.campaign_id == row.id)
        .group_by(CampaignAssignmentRow.rater, is_rated)
    )
    votes: dict[str, int] = {}
    for rater, rated, number in session.execute(counted):
        votes[rater] = votes.get(rater, 0) + (number if rated else 0)
    return dict(sorted(votes.items(), key=lambda entry: (-entry[1], entry[0])))


def _estimated_finish(session: Session, row: CampaignRow, answers: dict[str, int]) -> int | None:
    """When the last answer will be there, at the pace of those that came last; None where nothing tells."""
    if row.status != "generating" or row.error:
        return None
    latest = (
        select(CampaignAnswerRow.finished_at)
        .where(CampaignAnswerRow.campaign_id == row.id, CampaignAnswerRow.status == "done")
        .order_by(CampaignAnswerRow.finished_at.desc())
        .limit(_LATEST)
    )
    times = [time for time in session.scalars(latest) if time is not None]
    if len(times) < 2:
        return None
    each_s = max(times[0] - times[-1], 1) / (len(times) - 1)
    left = answers["total"] - answers["done"] - answers["failed"]
    return now_s() + round(left * each_s)
