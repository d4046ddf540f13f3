"""Webhook endpoints in the database: what may be one, and how each is changed. Knows no HTTP of its own.

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
from server.jobs.webhooks.signing import hint_of, new_secret
from server.storage.tables import WebhookDeliveryRow, WebhookEndpointRow, new_id, now_s
from server.wire.errors import BadRequest, NotFound

OLD_SECRET_S = 24 * 3600
MAX_URL = 2048


def create(session: Session, name: str, url: str, event_types: Sequence[str]) -> WebhookEndpointRow:
    """The new endpoint, its secret just made."""
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
    """The endpoint with this id. Raises: NotFound."""
    row = session.scalar(select(WebhookEndpointRow).where(WebhookEndpointRow.id == endpoint_id))
    if row is None:
        raise _not_found(endpoint_id)
    return row


def change(session: Session, endpoint_id: str, changes: dict[str, Any]) -> WebhookEndpointRow:
    """The endpoint with these columns changed; what is as it was leaves `updated_at` as it was. Raises: NotFound."""
    row = get(session, endpoint_id)
    if any(getattr(row, name) != value for name, value in changes.items()):
        for name, value in changes.items():
            setattr(row, name, value)
        row.updated_at = now_s()
    return row


def rotate_secret(session: Session, endpoint_id: str, *, keep_old: bool) -> WebhookEndpointRow:
    """The endpoint with a new secret; with `keep_old` events carry both signatures for 24 hours. Raises: NotFound."""
    now = now_s()
    # One statement: two rotations at once each keep the secret that the other has just replaced.
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
        raise _not_found(endpoint_id)
    return get(session, endpoint_id)


def remove(session: Session, endpoint_id: str) -> None:
    """Delete the endpoint, and what was still to be sent to it. Raises: NotFound."""
    gone = session.execute(delete(WebhookEndpointRow).where(WebhookEndpointRow.id == endpoint_id))
    if not cast("CursorResult[Any]", gone).rowcount:
        raise _not_found(endpoint_id)
    session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.endpoint_id == endpoint_id))


def endpoint_object(row: WebhookEndpointRow, *, show_secret: bool = False) -> dict[str, Any]:
    """OpenAI's `webhook_endpoint`; with its secret only when that was made just now."""
    return {
        "id": row.id,
        "object": "webhook_endpoint",
        "name": row.name,
        "url": row.url,
        "event_types": row.event_types,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "signing_secret_hint": hint_of(row.secret),
    } | ({"signing_secret": row.secret} if show_secret else {})


def checked_event_types(event_types: Sequence[str]) -> list[str]:
    """The event types, each once. Raises: BadRequest: there are none, or one that does not happen here."""
    unknown = [event_type for event_type in event_types if event_type not in EVENT_TYPES]
    if unknown or not event_types:
        given = f"{unknown[0][:200]!r} is no event type of this server" if unknown else "There is no event type"
        raise BadRequest(
            f"{given}. Name one or more of {', '.join(EVENT_TYPES)}.", code="invalid_event_type", param="event_types"
        )
    return list(dict.fromkeys(event_types))


def checked_url(url: str) -> str:
    """The URL. Raises: BadRequest: it is none that events may be sent to."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError as error:
        raise _bad_url(url, f"is not a URL ({error})") from error
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise _bad_url(url, f"is longer than {MAX_URL} characters, or not plain ASCII")
    if parts.username is not None or parts.fragment:
        raise _bad_url(url, "holds a user name or a fragment")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        raise _bad_url(url, "is neither https nor http to this machine itself (127.0.0.1, localhost)")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bad_url(url: str, fault: str) -> BadRequest:
    return BadRequest(
        f"The URL {url[:100]!r} {fault}. Give one like https://example.com/webhooks.", code="invalid_url", param="url"
    )


def _not_found(endpoint_id: str) -> NotFound:
    return NotFound(
        f"No webhook endpoint has the id {endpoint_id[:200]!r}. GET /v1/webhook_endpoints lists them.",
        code="webhook_endpoint_not_found",
        param="webhook_endpoint_id",
    )
