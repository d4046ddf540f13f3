"""The items of a campaign: which is free next, and what a rater is shown of it. Knows nothing of who judges what."""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import ColumnElement, Row, select, update
from sqlalchemy.orm import Session

from server.arena.comparisons.store import SIDES
from server.storage.tables import (
    CampaignAnswerRow,
    CampaignItemRow,
    CampaignPromptRow,
    CampaignRow,
    ComparisonRow,
    new_id,
)

BOTH = 2
"""`CampaignItemRow.answers` of an item that can be judged."""
Item = Row[int, int, str, str]
"""Number, position and the two models of an item."""
_TRIES = 5
"""A vote that comes in at the same moment may take an item's last place, which only PostgreSQL lets happen."""


def free(campaign: CampaignRow) -> tuple[ColumnElement[bool], ...]:
    """The conditions of an item of this campaign that has a place for one more rater."""
    return (
        CampaignItemRow.campaign_id == campaign.id,
        CampaignItemRow.answers == BOTH,
        CampaignItemRow.places_taken < campaign.raters_per_item,
    )


def take(session: Session, campaign: CampaignRow, where: ColumnElement[bool]) -> Item | None:
    """The first free item for which the condition holds, one of its places taken."""
    item = CampaignItemRow
    first = (
        select(item.number)
        .where(*free(campaign), where)
        .order_by(item.places_taken.desc(), item.shuffle.desc())  # as the index has them, read backwards
        .limit(1)
    )
    for _ in range(_TRIES):
        number = session.scalar(first)
        if number is None:
            return None
        taken = (
            update(item)
            .where(item.number == number, *free(campaign))
            .values(places_taken=item.places_taken + 1)
            .returning(item.number, item.position, item.model_a, item.model_b)
        )
        if row := session.execute(taken, execution_options={"synchronize_session": False}).first():
            return row
    return None


def comparison_of(
    session: Session, campaign: CampaignRow, item: Item, rater: str, created_by: str | None, now: int
) -> ComparisonRow:
    """The two answers in random order, blind, for this rater."""
    prompt = session.get_one(CampaignPromptRow, (campaign.id, item.position))
    models = random.SystemRandom().sample([item.model_a, item.model_b], len(SIDES))
    answers = select(CampaignAnswerRow.model, CampaignAnswerRow.answer).where(
        CampaignAnswerRow.campaign_id == campaign.id,
        CampaignAnswerRow.position == item.position,
        CampaignAnswerRow.model.in_(models),
    )
    by_model: dict[str, Any] = dict(session.execute(answers).all())
    return ComparisonRow(
        id=new_id("cmp"),
        created_at=now,
        created_by=created_by,
        blind=True,
        messages=prompt.messages,
        sampling=campaign.sampling,
        campaign_id=campaign.id,
        assigned_to=rater,
        **{side: by_model[model] for side, model in zip(SIDES, models, strict=True)},
    )
