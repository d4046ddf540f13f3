"""Campaigns in the database: create, get, list, close, reopen, delete.

A campaign with a checkpoint that the caller may not use is hidden from the caller.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from server.access import checkpoints
from server.access.keys import Caller
from server.storage.list_pages import fetch_page
from server.storage.tables import (
    CampaignAnswerRow,
    CampaignAssignmentRow,
    CampaignInvitationRow,
    CampaignItemRow,
    CampaignPromptRow,
    CampaignRaterRow,
    CampaignRow,
    ComparisonRow,
    RatingRow,
    new_id,
    now_s,
)
from server.wire.errors import Conflict, NotFound

LEFT_OUT = -10
"""Added to `CampaignItemRow.answers` when an answer fails: it then stays below zero."""


@dataclass(frozen=True)
class CampaignPlan:
    """The settings of a new campaign."""

    name: str
    models: list[str]
    """Versions, without duplicates."""
    prompts: list[list[Any]]
    """The messages of each prompt."""
    raters_per_item: int
    sampling: dict[str, Any]
    dimensions: bool


def create(session: Session, plan: CampaignPlan, caller: Caller) -> CampaignRow:
    """Create a campaign, with all its answers pending."""
    row = CampaignRow(
        id=new_id("camp"),
        name=plan.name,
        status="generating",
        models=plan.models,
        prompts=len(plan.prompts),
        raters_per_item=plan.raters_per_item,
        sampling=plan.sampling,
        dimensions=plan.dimensions,
        created_at=now_s(),
        created_by=caller.key_id,
        project=caller.project,
    )
    session.add(row)
    session.flush()
    _insert_rows(session, row.id, plan)
    return row


def _insert_rows(session: Session, campaign_id: str, plan: CampaignPlan) -> None:
    """Insert rows for every prompt, answer and item; answers prompt by prompt, so that the first pairs are soon
    complete."""
    places = [{"campaign_id": campaign_id, "position": position} for position in range(len(plan.prompts))]
    prompts = zip(places, plan.prompts, strict=True)
    session.execute(
        insert(CampaignPromptRow), [place | {"messages": messages, "answered": 0} for place, messages in prompts]
    )
    answers = [place | {"model": model} for place in places for model in plan.models]
    fresh = {"status": "pending", "attempts": 0}
    session.execute(insert(CampaignAnswerRow), [answer | fresh | {"id": new_id("answer")} for answer in answers])
    chance = random.SystemRandom()
    session.execute(
        insert(CampaignItemRow),
        [
            place
            | {"model_a": first, "model_b": second}
            | {"answers": 0, "places_taken": 0, "shuffle": chance.getrandbits(31)}
            for place in places
            for first, second in combinations(plan.models, 2)
        ],
    )


def get(session: Session, campaign_id: str, caller: Caller) -> CampaignRow:
    """Return the campaign with that id.

    Raises:
        NotFound: it doesn't exist, or is hidden from this caller.
    """
    row = session.scalar(select(CampaignRow).where(CampaignRow.id == campaign_id))
    if row is None or checkpoints.find_foreign(session, caller, row.models):
        raise NotFound(
            f"No campaign has the id {campaign_id[:200]!r}. GET /v1/campaigns lists them.",
            code="campaign_not_found",
            param="campaign_id",
        )
    return row


def list_campaigns(
    session: Session, caller: Caller, *, after: str | None, limit: int, ascending: bool
) -> tuple[list[CampaignRow], bool]:
    """Return a page of the campaigns visible to this caller, and whether there are more. It may have fewer than
    `limit`."""
    rows, has_more = fetch_page(session, CampaignRow, after=after, limit=limit, ascending=ascending)
    foreign = checkpoints.find_foreign(session, caller, {model for row in rows for model in row.models})
    return [row for row in rows if not foreign.intersection(row.models)], has_more


def close(session: Session, row: CampaignRow) -> None:
    """Close the campaign: no more assignments, no more answers. Closing it twice changes nothing."""
    if row.status != "closed":
        row.status, row.closed_at, row.error = "closed", now_s(), None


def reopen(session: Session, row: CampaignRow) -> None:
    """Reopen the campaign. If no pair can be rated, failed answers are generated again."""
    if row.status in ("closed", "failed"):
        if not has_items(session, row.id):  # it failed, and may have been closed after that
            _reset_failures(session, row.id)
        waiting = CampaignAnswerRow.campaign_id == row.id, CampaignAnswerRow.status == "pending"
        is_waiting = session.scalar(select(CampaignAnswerRow.id).where(*waiting).limit(1)) is not None
        row.status, row.closed_at, row.error = "generating" if is_waiting else "open", None, None


def has_items(session: Session, campaign_id: str) -> bool:
    """Return whether any pair can be rated, now or later."""
    usable = CampaignItemRow.campaign_id == campaign_id, CampaignItemRow.answers >= 0
    return session.scalar(select(CampaignItemRow.number).where(*usable).limit(1)) is not None


def _reset_failures(session: Session, campaign_id: str) -> None:
    failed = CampaignAnswerRow.campaign_id == campaign_id, CampaignAnswerRow.status == "failed"
    anew = {"status": "pending", "attempts": 0, "answer": None, "error": None, "finished_at": None}
    session.execute(update(CampaignAnswerRow).where(*failed).values(anew))
    answers = (
        select(func.count())
        .where(
            CampaignAnswerRow.campaign_id == CampaignItemRow.campaign_id,
            CampaignAnswerRow.position == CampaignItemRow.position,
            CampaignAnswerRow.status == "done",
            or_(CampaignAnswerRow.model == CampaignItemRow.model_a, CampaignAnswerRow.model == CampaignItemRow.model_b),
        )
        .scalar_subquery()
    )
    session.execute(update(CampaignItemRow).where(CampaignItemRow.campaign_id == campaign_id).values(answers=answers))


def remove(session: Session, row: CampaignRow) -> None:
    """Delete the campaign with everything that belongs to it.

    Raises:
        Conflict: it has ratings, which are never deleted.
    """
    # Updating the row first serializes this with concurrent assignments.
    session.execute(update(CampaignRow).where(CampaignRow.id == row.id).values(status="closed"))
    has_ratings_error = Conflict(
        f"The campaign {row.id} has ratings, and ratings are never deleted. Close it with POST "
        f"/v1/campaigns/{row.id}/close.",
        code="campaign_has_votes",
    )
    assigned = select(ComparisonRow.id).where(ComparisonRow.campaign_id == row.id)
    if session.scalar(select(RatingRow.id).where(RatingRow.comparison_id.in_(assigned)).limit(1)):
        raise has_ratings_error
    try:
        session.execute(delete(ComparisonRow).where(ComparisonRow.campaign_id == row.id))
    except IntegrityError as error:  # the first rating came in just now
        raise has_ratings_error from error
    tables: Sequence[Any] = (
        CampaignAssignmentRow,
        CampaignInvitationRow,
        CampaignRaterRow,
        CampaignItemRow,
        CampaignAnswerRow,
        CampaignPromptRow,
    )
    for table in tables:
        session.execute(delete(table).where(table.campaign_id == row.id))
    session.delete(row)
