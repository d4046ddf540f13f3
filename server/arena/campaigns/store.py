"""Campaigns in the database: made, found, listed, closed, opened again, deleted.

A campaign with a checkpoint that the caller may not use isn't there for the caller. Knows no HTTP beyond the errors.
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
"""`CampaignItemRow.answers` once an answer failed: whatever else comes, it stays below zero."""


@dataclass(frozen=True)
class Plan:
    """What a campaign is to be."""

    name: str
    models: list[str]
    """Versions, each once."""
    prompts: list[list[Any]]
    """The messages of each."""
    raters_per_item: int
    sampling: dict[str, Any]
    dimensions: bool


def create(session: Session, plan: Plan, caller: Caller) -> CampaignRow:
    """The new campaign, all its answers still to be generated."""
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
    _lay_out(session, row.id, plan)
    return row


def _lay_out(session: Session, campaign_id: str, plan: Plan) -> None:
    """Rows for every prompt, answer and item; the answers prompt by prompt, so that the first pairs are soon whole."""
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
    """The campaign of that id.

    Raises:
        NotFound: there is none, or not for this caller.
    """
    row = session.scalar(select(CampaignRow).where(CampaignRow.id == campaign_id))
    if row is None or checkpoints.find_foreign(session, caller, row.models):
        raise NotFound(
            f"No campaign has the id {campaign_id[:200]!r}. GET /v1/campaigns lists them.",
            code="campaign_not_found",
            param="campaign_id",
        )
    return row


def page(
    session: Session, caller: Caller, *, after: str | None, limit: int, ascending: bool
) -> tuple[list[CampaignRow], bool]:
    """Campaigns that are there for this caller, and whether more follow. A page may hold fewer than `limit`."""
    rows, has_more = fetch_page(session, CampaignRow, after=after, limit=limit, ascending=ascending)
    foreign = checkpoints.find_foreign(session, caller, {model for row in rows for model in row.models})
    return [row for row in rows if not foreign.intersection(row.models)], has_more


def close(session: Session, row: CampaignRow) -> None:
    """No more pairs are given out and no more answers generated. What is closed stays so."""
    if row.status != "closed":
        row.status, row.closed_at, row.error = "closed", now_s(), None


def reopen(session: Session, row: CampaignRow) -> None:
    """Pairs are given out again. Where no pair can be judged, all that failed is generated anew."""
    if row.status in ("closed", "failed"):
        if not has_items(session, row.id):  # it failed, and may have been closed after that
            _forget_failures(session, row.id)
        waiting = CampaignAnswerRow.campaign_id == row.id, CampaignAnswerRow.status == "pending"
        is_waiting = session.scalar(select(CampaignAnswerRow.id).where(*waiting).limit(1)) is not None
        row.status, row.closed_at, row.error = "generating" if is_waiting else "open", None, None


def has_items(session: Session, campaign_id: str) -> bool:
    """Whether there is, or may still be, a pair that can be judged."""
    usable = CampaignItemRow.campaign_id == campaign_id, CampaignItemRow.answers >= 0
    return session.scalar(select(CampaignItemRow.number).where(*usable).limit(1)) is not None


def _forget_failures(session: Session, campaign_id: str) -> None:
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
    """Delete the campaign with all that belongs to it.

    Raises:
        Conflict: somebody voted in it; votes are never deleted.
    """
    # Changing the row first makes this wait for whoever is given a pair just now, and them for this.
    session.execute(update(CampaignRow).where(CampaignRow.id == row.id).values(status="closed"))
    has_votes = Conflict(
        f"The campaign {row.id} has votes, and votes are never deleted. POST /v1/campaigns/{row.id}/close ends it.",
        code="campaign_has_votes",
    )
    given = select(ComparisonRow.id).where(ComparisonRow.campaign_id == row.id)
    if session.scalar(select(RatingRow.id).where(RatingRow.comparison_id.in_(given)).limit(1)):
        raise has_votes
    try:
        session.execute(delete(ComparisonRow).where(ComparisonRow.campaign_id == row.id))
    except IntegrityError as error:  # the first vote came in just now
        raise has_votes from error
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
