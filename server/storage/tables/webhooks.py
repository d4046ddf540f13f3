"""Webhook endpoints, and the deliveries to them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from server.storage.tables.base import BIG, Base


class WebhookEndpointRow(Base):
    """An endpoint that events are sent to. https://platform.openai.com/docs/guides/webhooks

    The secrets sign the deliveries, so they are stored in plain text; no response shows them again and no log has them.
    """

    __tablename__ = "webhook_endpoints"

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[Any]]
    secret: Mapped[str]
    old_secret: Mapped[str | None]
    old_secret_until: Mapped[int | None]
    created_at: Mapped[int]
    updated_at: Mapped[int]


class WebhookDeliveryRow(Base):
    """The delivery of one event to one endpoint, written in the same transaction as the change it reports."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index(None, "status", "next_attempt_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    endpoint_id: Mapped[str]
    event_id: Mapped[str]
    event_type: Mapped[str]
    payload: Mapped[str]
    """The JSON text that is signed and sent, byte for byte."""
    status: Mapped[str]
    """`pending`, `delivered` or `given_up`."""
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[int]
    created_at: Mapped[int]
    finished_at: Mapped[int | None]
    last_result: Mapped[str | None]
    """The status of the last response, or why there was none."""
