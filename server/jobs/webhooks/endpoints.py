"""Webhook endpoints in the database: validation and changes.

https://platform.openai.com/docs/guides/webhooks
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from sqlalchemy import CursorResult, case, delete, literal, select, update
from sqlalchemy.orm import Session

from server.jobs.webhooks.outbox import EVENT_TYPES
from server.jobs.webhooks.signing import mask_secret, new_secret
from server.storage.tables import WebhookDeliveryRow, WebhookEndpointRow, new_id, now_s
from server.wire.errors import BadRequest, NotFound

OLD_SECRET_S = 24 * 3600
MAX_URL = 2048


def create(session: Session, name: str, url: str, event_types: Sequence[str]) -> WebhookEndpointRow:
    """Create an endpoint with a new secret."""
    now = now_s()
    row = WebhookEndpointRow(
        id=new_id("whep"),
        name=name,
        url=url,
        event_types=list(event_types),
        secret=new_secret(),
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    session.flush()
    return row


def get(session: Session, endpoint_id: str) -> WebhookEndpointRow:
    """Return the endpoint with this id. Raises: NotFound."""
    row = session.scalar(select(WebhookEndpointRow).where(WebhookEndpointRow.id == endpoint_id))
    if row is None:
        raise _not_found_error(endpoint_id)
    return row


def change(session: Session, endpoint_id: str, changes: dict[str, Any]) -> WebhookEndpointRow:
    """Change these columns and return the endpoint; `updated_at` changes only if a value does. Raises: NotFound."""
    row = get(session, endpoint_id)
    if any(getattr(row, name) != value for name, value in changes.items()):
        for name, value in changes.items():
            setattr(row, name, value)
        row.updated_at = now_s()
    return row


def rotate_secret(session: Session, endpoint_id: str, *, keep_old: bool) -> WebhookEndpointRow:
    """Give the endpoint a new secret; with `keep_old`, events have both signatures for 24 hours. Raises: NotFound."""
    now = now_s()
    # One statement, so that of two concurrent rotations each keeps the secret that it replaces.
    rotated = session.execute(
        update(WebhookEndpointRow)
        .where(WebhookEndpointRow.id == endpoint_id)
        .values(
            old_secret=case((literal(keep_old), WebhookEndpointRow.secret), else_=None),
            old_secret_until=now + OLD_SECRET_S if keep_old else None,
            secret=new_secret(),
            updated_at=now,
        )
    )
    if not cast("CursorResult[Any]", rotated).rowcount:
        raise _not_found_error(endpoint_id)
    return get(session, endpoint_id)


def remove(session: Session, endpoint_id: str) -> None:
    """Delete the endpoint and its pending deliveries. Raises: NotFound."""
    deleted = session.execute(delete(WebhookEndpointRow).where(WebhookEndpointRow.id == endpoint_id))
    if not cast("CursorResult[Any]", deleted).rowcount:
        raise _not_found_error(endpoint_id)
    session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.endpoint_id == endpoint_id))


def endpoint_object(row: WebhookEndpointRow, *, show_secret: bool = False) -> dict[str, Any]:
    """Return OpenAI's `webhook_endpoint` object; `show_secret` is only for a secret that was just created."""
    return {
        "id": row.id,
        "object": "webhook_endpoint",
        "name": row.name,
        "url": row.url,
        "event_types": row.event_types,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "signing_secret_hint": mask_secret(row.secret),
    } | ({"signing_secret": row.secret} if show_secret else {})


def check_event_types(event_types: Sequence[str]) -> list[str]:
    """Return the event types without duplicates. Raises: BadRequest if there are none, or one is unknown."""
    unknown = [event_type for event_type in event_types if event_type not in EVENT_TYPES]
    if unknown or not event_types:
        given = f"{unknown[0][:200]!r} isn't an event type of this server" if unknown else "No event types are given"
        raise BadRequest(
            f"{given}. Use one or more of {', '.join(EVENT_TYPES)}.", code="invalid_event_type", param="event_types"
        )
    return list(dict.fromkeys(event_types))


def check_url(url: str) -> str:
    """Return the URL. Raises: BadRequest if events may not be sent there."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _url_error(url, f"is not a URL ({error})") from error
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise _url_error(url, f"is longer than {MAX_URL} characters, or not plain ASCII")
    if parts.username is not None or parts.fragment:
        raise _url_error(url, "contains a user name or a fragment")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        raise _url_error(url, "is neither https nor http to this machine (127.0.0.1, localhost)")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url_error(url: str, fault: str) -> BadRequest:
    return BadRequest(
        f"The URL {url[:100]!r} {fault}. Use one like https://example.com/webhooks.", code="invalid_url", param="url"
    )


def _not_found_error(endpoint_id: str) -> NotFound:
    return NotFound(
        f"No webhook endpoint has the id {endpoint_id[:200]!r}. GET /v1/webhook_endpoints lists them.",
        code="webhook_endpoint_not_found",
        param="webhook_endpoint_id",
    )
