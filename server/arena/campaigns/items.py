"""The items of a campaign: finding a free one, and its comparison for a rater."""

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
"""`CampaignItemRow.answers` of an item that can be rated."""
Item = Row[int, int, str, str]
"""Number, position and the two models of an item."""
_TRIES = 5
"""A simultaneous rating may take an item's last place, but only on PostgreSQL."""


def build_free_conditions(campaign: CampaignRow) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for items of this campaign with a free place for a rater."""
    return (
        CampaignItemRow.campaign_id == campaign.id,
        CampaignItemRow.answers == BOTH,
        CampaignItemRow.places_taken < campaign.raters_per_item,
    )


def take_place(session: Session, campaign: CampaignRow, where: ColumnElement[bool]) -> Item | None:
    """Take a place of the first free item that fulfils the condition, and return the item."""
    item = CampaignItemRow
    first = (
        select(item.number)
        .where(*build_free_conditions(campaign), where)
        .order_by(item.places_taken.desc(), item.shuffle.desc())  # the index in reverse order
        .limit(1)
    )
    for _ in range(_TRIES):
        number = session.scalar(first)
        if number is None:
            return None
        taken = (
            update(item)
            .where(item.number == number, *build_free_conditions(campaign))
            .values(places_taken=item.places_taken + 1)
            .returning(item.number, item.position, item.model_a, item.model_b)
        )
        if row := session.execute(taken, execution_options={"synchronize_session": False}).first():
            return row
    return None


def build_comparison(
    session: Session, campaign: CampaignRow, item: Item, rater: str, created_by: str | None, now: int
) -> ComparisonRow:
    """Return a blind comparison of the two answers, in random order, for this rater."""
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
