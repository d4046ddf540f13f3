"""A campaign as the API's object, with its progress."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from server.storage.tables import CampaignAnswerRow, CampaignAssignmentRow, CampaignItemRow, CampaignRow, now_s

_LATEST = 50
"""The pace is estimated from this many of the latest answers."""


def campaign_object(session: Session, row: CampaignRow) -> dict[str, Any]:
    """Return the campaign as the API's object, with its counts."""
    answers = _count_answers(session, row)
    items, left_out = _count_items(session, row)
    raters = _count_ratings(session, row)
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
        "estimated_finish": _estimate_finish(session, row, answers),
        "closed_at": row.closed_at,
        "created_by": row.created_by,
    }


def _count_answers(session: Session, row: CampaignRow) -> dict[str, int]:
    counted = (
        select(CampaignAnswerRow.status, func.count())
        .where(CampaignAnswerRow.campaign_id == row.id)
        .group_by(CampaignAnswerRow.status)
    )
    counts = dict(session.execute(counted).all())
    return {"done": counts.get("done", 0), "total": sum(counts.values()), "failed": counts.get("failed", 0)}


def _count_items(session: Session, row: CampaignRow) -> tuple[int, int]:
    """Return how many pairs can or will be rated, and how many are left out because an answer failed."""
    is_left_out = CampaignItemRow.answers < 0
    counted = select(is_left_out, func.count()).where(CampaignItemRow.campaign_id == row.id).group_by(is_left_out)
    counts = {bool(left_out): number for left_out, number in session.execute(counted)}
    return counts.get(False, 0), counts.get(True, 0)


def _count_ratings(session: Session, row: CampaignRow) -> dict[str, int]:
    """Return rater → current ratings, for every rater with an assignment, the most first."""
    is_rated = CampaignAssignmentRow.status == "rated"
    counted = (
        select(CampaignAssignmentRow.rater, is_rated, func.count())
        .where(CampaignAssignmentRow.campaign_id == row.id)
        .group_by(CampaignAssignmentRow.rater, is_rated)
    )
    ratings: dict[str, int] = {}
    for rater, rated, number in session.execute(counted):
        ratings[rater] = ratings.get(rater, 0) + (number if rated else 0)
    return dict(sorted(ratings.items(), key=lambda entry: (-entry[1], entry[0])))


def _estimate_finish(session: Session, row: CampaignRow, answers: dict[str, int]) -> int | None:
    """Estimate when the last answer will be generated, from the pace of the latest ones; None if unknown."""
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
