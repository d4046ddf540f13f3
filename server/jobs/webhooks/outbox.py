"""The outbox: deliveries are stored in the transaction of the change they report, so that neither exists alone."""

from __future__ import annotations

import json

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.storage.tables import WebhookDeliveryRow, WebhookEndpointRow, new_id, now_s

EVENT_TYPES = ("fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled")
"""Those of OpenAI's event types that this server sends."""


def enqueue(session: Session, event_type: str, object_id: str) -> None:
    """Add a delivery for each endpoint that subscribes to this event type, such as `fine_tuning.job.succeeded`."""
    event_id, now = new_id("evt"), now_s()
    for endpoint in session.scalars(select(WebhookEndpointRow)):
        if event_type in endpoint.event_types:
            session.add(
                WebhookDeliveryRow(
                    id=new_id("whdel"),
                    endpoint_id=endpoint.id,
                    event_id=event_id,
                    event_type=event_type,
                    payload=build_payload(event_id, event_type, object_id, now),
                    status="pending",
                    next_attempt_at=now,
                    created_at=now,
                )
            )


def build_payload(event_id: str, event_type: str, object_id: str, created_at: int) -> str:
    """Return the event as JSON text: OpenAI's webhook event, which has only the object's id."""
    event = {
        "id": event_id,
        "object": "event",
        "type": event_type,
        "created_at": created_at,
        "data": {"id": object_id},
    }
    return json.dumps(event, separators=(",", ":"))
