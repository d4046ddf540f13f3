"""`/v1/webhook_endpoints`: manages webhooks. https://platform.openai.com/docs/guides/webhooks

Requires an admin key: an endpoint makes the server send requests, and receives events of all jobs.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from server.access.callers import AdminDep
from server.app.services import ServicesDep
from server.jobs.webhooks import endpoints, outbox
from server.jobs.webhooks.endpoints import check_event_types, check_url, endpoint_object
from server.jobs.webhooks.sender import UnreachableError
from server.storage.list_pages import build_list_page, fetch_page
from server.storage.tables import WebhookEndpointRow, new_id, now_s
from server.wire.errors import BadRequest

router = APIRouter(prefix="/v1", tags=["webhook endpoints"])

SAMPLE_JOB = "ftjob-000000000000000000000000"
"""The job id in test events; no job has it."""
Name = Annotated[
    str,
    Field(
        min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$", description="A name to show, for your reference."
    ),
]


class CreateEndpoint(BaseModel):
    """The body of `POST /v1/webhook_endpoints`."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    url: str = Field(description="An https URL, or http to this machine.")
    event_types: list[str] = Field(max_length=100, description="Event types to send.")


class UpdateEndpoint(BaseModel):
    """The body of `POST /v1/webhook_endpoints/{webhook_endpoint_id}`: the fields to change."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    url: str | None = None
    event_types: list[str] | None = Field(None, max_length=100)


class RotateSecret(BaseModel):
    """The body of `POST /v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret`."""

    model_config = ConfigDict(extra="forbid")

    keep_old_secret_active_for_24_hours: bool = Field(
        False, description="Keep the old secret valid for a day: events are signed with both."
    )


class TestEndpoint(BaseModel):
    """The body of `POST /v1/webhook_endpoints/{webhook_endpoint_id}/test`."""

    model_config = ConfigDict(extra="forbid")

    event_type: str


@router.get("/webhook_event_types")
def list_event_types(_admin: AdminDep) -> dict[str, Any]:
    """List the supported event types."""
    return {"object": "list", "data": list(outbox.EVENT_TYPES)}


@router.post("/webhook_endpoints")
async def create_endpoint(body: CreateEndpoint, services: ServicesDep, _admin: AdminDep) -> dict[str, Any]:
    """Create an endpoint; its signing secret is only shown once."""
    url, event_types = check_url(body.url), check_event_types(body.event_types)
    row = await services.database.run(lambda session: endpoints.create(session, body.name, url, event_types))
    return endpoint_object(row, show_secret=True)


@router.get("/webhook_endpoints")
async def list_endpoints(
    services: ServicesDep,
    _admin: AdminDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List the endpoints, newest first."""
    rows, has_more = await services.database.run(
        lambda session: fetch_page(session, WebhookEndpointRow, after=after, limit=limit)
    )
    return build_list_page([endpoint_object(row) for row in rows], has_more=has_more)


@router.get("/webhook_endpoints/{webhook_endpoint_id}")
async def retrieve_endpoint(webhook_endpoint_id: str, services: ServicesDep, _admin: AdminDep) -> dict[str, Any]:
    """Get an endpoint."""
    return endpoint_object(await services.database.run(lambda session: endpoints.get(session, webhook_endpoint_id)))


@router.post("/webhook_endpoints/{webhook_endpoint_id}")
async def update_endpoint(
    webhook_endpoint_id: str, body: UpdateEndpoint, services: ServicesDep, _admin: AdminDep
) -> dict[str, Any]:
    """Update an endpoint."""
    changes: dict[str, Any] = body.model_dump(exclude_none=True)
    if body.url is not None:
        changes["url"] = check_url(body.url)
    if body.event_types is not None:
        changes["event_types"] = check_event_types(body.event_types)
    return endpoint_object(
        await services.database.run(lambda session: endpoints.change(session, webhook_endpoint_id, changes))
    )


@router.delete("/webhook_endpoints/{webhook_endpoint_id}")
async def delete_endpoint(webhook_endpoint_id: str, services: ServicesDep, _admin: AdminDep) -> dict[str, Any]:
    """Delete an endpoint and its pending events."""
    await services.database.run(lambda session: endpoints.remove(session, webhook_endpoint_id))
    return {"id": webhook_endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True}


@router.post("/webhook_endpoints/{webhook_endpoint_id}/rotate_secret")
async def rotate_secret(
    webhook_endpoint_id: str, services: ServicesDep, _admin: AdminDep, body: RotateSecret | None = None
) -> dict[str, Any]:
    """Create a new signing secret, which is only shown once."""
    keep_old = body is not None and body.keep_old_secret_active_for_24_hours
    row = await services.database.run(
        lambda session: endpoints.rotate_secret(session, webhook_endpoint_id, keep_old=keep_old)
    )
    return endpoint_object(row, show_secret=True)


@router.post("/webhook_endpoints/{webhook_endpoint_id}/test")
async def send_test(
    webhook_endpoint_id: str, body: TestEndpoint, services: ServicesDep, _admin: AdminDep
) -> dict[str, Any]:
    """Send a sample event once, now, and return the endpoint's response. Raises: BadRequest: it didn't respond."""
    [event_type] = _check_test_type(body.event_type)
    row = await services.database.run(lambda session: endpoints.get(session, webhook_endpoint_id))
    event_id = new_id("evt")
    payload = outbox.build_payload(event_id, event_type, SAMPLE_JOB, now_s())
    try:
        status = await services.webhooks.send_sample(row, event_id, payload)
    except UnreachableError as error:
        raise BadRequest(
            f"The endpoint {row.id} didn't respond: {error}. Check its URL and that it is running.",
            code="webhook_endpoint_unreachable",
        ) from error
    return {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": row.id,
        "event_type": event_type,
        "status_code": status,
        "success": True,
    }


def _check_test_type(event_type: str) -> list[str]:
    try:
        return check_event_types([event_type])
    except BadRequest as error:
        raise BadRequest(error.message, code=error.code, param="event_type") from error
