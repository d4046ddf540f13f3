"""Campaigns: prompts × models, the pairs to be rated, the raters."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.storage.tables.base import BIG, Base


class CampaignRow(Base):
    """A fixed set of prompts, answered by a few models and rated pair by pair by several raters."""

    __tablename__ = "campaigns"

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    status: Mapped[str] = mapped_column(index=True)
    """`generating`, `open`, `closed` or `failed`."""
    error: Mapped[dict[str, Any] | None]
    """What the answers are waiting for, or why there are none: OpenAI's `message`, `type`, `param` and `code`."""
    models: Mapped[list[Any]]
    """Versions rather than aliases, which may be moved to another model."""
    prompts: Mapped[int]
    raters_per_item: Mapped[int]
    sampling: Mapped[dict[str, Any]]
    dimensions: Mapped[bool]
    """Whether raters are asked for scores beside the verdict."""
    created_at: Mapped[int]
    closed_at: Mapped[int | None]
    created_by: Mapped[str | None]
    project: Mapped[str]
    """The project whose permissions apply while the answers are generated."""


class CampaignPromptRow(Base):
    """One prompt of a campaign."""

    __tablename__ = "campaign_prompts"

    campaign_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    """Counts from 0."""
    messages: Mapped[list[Any]]
    answered: Mapped[int] = mapped_column(default=0)
    """How many models have finished with it. Updating it serializes models that finish the same prompt at once."""


class CampaignAnswerRow(Base):
    """One model's answer to one prompt. The pending rows are the queue of what is to be generated."""

    __tablename__ = "campaign_answers"
    __table_args__ = (
        UniqueConstraint("campaign_id", "position", "model"),
        Index(None, "status", "number"),
        Index(None, "campaign_id", "status", "finished_at"),
    )

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    campaign_id: Mapped[str]
    position: Mapped[int]
    model: Mapped[str]
    status: Mapped[str]
    """`pending`, `done` or `failed`."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Temporary failures so far."""
    answer: Mapped[dict[str, Any] | None]
    """In the form in which a comparison stores a side."""
    error: Mapped[dict[str, Any] | None]
    finished_at: Mapped[int | None]


class CampaignItemRow(Base):
    """One prompt with two models' answers: what raters rate."""

    __tablename__ = "campaign_items"
    __table_args__ = (
        UniqueConstraint("campaign_id", "position", "model_a", "model_b"),
        Index(None, "campaign_id", "answers", "places_taken", "shuffle"),
    )

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    campaign_id: Mapped[str]
    position: Mapped[int]
    model_a: Mapped[str]
    model_b: Mapped[str]
    answers: Mapped[int] = mapped_column(default=0)
    """Answers that exist; with both, the item can be rated. Negative once one of them failed: the item is skipped."""
    places_taken: Mapped[int] = mapped_column(default=0)
    """Raters who have rated it or are assigned to it now."""
    shuffle: Mapped[int]
    """A random number; items are assigned in its order."""


class CampaignRaterRow(Base):
    """One rater in one campaign. Locking this row serializes the rater's requests."""

    __tablename__ = "campaign_raters"

    campaign_id: Mapped[str] = mapped_column(primary_key=True)
    rater: Mapped[str] = mapped_column(primary_key=True)
    asked_at: Mapped[int]


class CampaignAssignmentRow(Base):
    """One item assigned to one rater, as a comparison of its own."""

    __tablename__ = "campaign_assignments"
    __table_args__ = (
        UniqueConstraint("item", "rater"),
        Index(None, "campaign_id", "status", "assigned_at"),
        Index(None, "campaign_id", "rater", "status"),
    )

    comparison_id: Mapped[str] = mapped_column(primary_key=True)
    campaign_id: Mapped[str]
    item: Mapped[int] = mapped_column(BIG)
    rater: Mapped[str]
    status: Mapped[str]
    """`open`; `rated`; `lapsed` if it timed out, which frees its place; `withdrawn` if its rating was withdrawn."""
    assigned_at: Mapped[int]


class CampaignInvitationRow(Base):
    """One rater's invitation to one campaign. The token is shown once and never stored: `sha256` is its hash."""

    __tablename__ = "campaign_invitations"

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    campaign_id: Mapped[str] = mapped_column(index=True)
    rater: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
    expires_at: Mapped[int]
    revoked_at: Mapped[int | None]
    created_by: Mapped[str | None]
