"""`/v1/webhook_endpoints`: where events are sent to. https://platform.openai.com/docs/guides/webhooks

Only an admin's key may come here: an endpoint makes the server call out, and hears of everybody's jobs.
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
"""What a test event is about: no job has this id."""
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$", description="For people.")]


class CreateEndpoint(BaseModel):
    """The body of `POST /v1/webhook_endpoints`."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    url: str = Field(description="https, or http to this machine itself.")
    event_types: list[str] = Field(max_length=100, description="What is to be told.")


class UpdateEndpoint(BaseModel):
    """The body of `POST /v1/webhook_endpoints/{webhook_endpoint_id}`: what is to change."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    url: str | None = None
    event_types: list[str] | None = Field(None, max_length=100)


class RotateSecret(BaseModel):
    """The body of `POST /v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret`."""

    model_config = ConfigDict(extra="forbid")

    keep_old_secret_active_for_24_hours: bool = Field(False, description="Sign with both secrets for a day.")


class TestEndpoint(BaseModel):
    """The body of `POST /v1/webhook_endpoints/{webhook_endpoint_id}/test`."""

    model_config = ConfigDict(extra="forbid")

    event_type: str


@router.get("/webhook_event_types")
def list_event_types(_admin: AdminDep) -> dict[str, Any]:
    """The event types that an endpoint can ask for."""
    return {"object": "list", "data": list(outbox.EVENT_TYPES)}


@router.post("/webhook_endpoints")
async def create_endpoint(body: CreateEndpoint, services: ServicesDep, _admin: AdminDep) -> dict[str, Any]:
    """A new endpoint with its signing secret, which is shown this once."""
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
    """The endpoints, newest first."""
    rows, has_more = await services.database.run(
        lambda session: fetch_page(session, WebhookEndpointRow, after=after, limit=limit)
    )
    return build_list_page([endpoint_object(row) for row in rows], has_more=has_more)


@router.get("/webhook_endpoints/{webhook_endpoint_id}")
async def retrieve_endpoint(webhook_endpoint_id: str, services: ServicesDep, _admin: AdminDep) -> dict[str, Any]:
    """One endpoint."""
    return endpoint_object(await services.database.run(lambda session: endpoints.get(session, webhook_endpoint_id)))


@router.post("/webhook_endpoints/{webhook_endpoint_id}")
async def update_endpoint(
    webhook_endpoint_id: str, body: UpdateEndpoint, services: ServicesDep, _admin: AdminDep
) -> dict[str, Any]:
    """The endpoint with what the body names changed."""
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
    """Delete the endpoint, and what was still to be sent to it."""
    await services.database.run(lambda session: endpoints.remove(session, webhook_endpoint_id))
    return {"id": webhook_endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True}


@router.post("/webhook_endpoints/{webhook_endpoint_id}/rotate_secret")
async def rotate_secret(
    webhook_endpoint_id: str, services: ServicesDep, _admin: AdminDep, body: RotateSecret | None = None
) -> dict[str, Any]:
    """The endpoint with a new secret, which is shown this once."""
    keep_old = body is not None and body.keep_old_secret_active_for_24_hours
    row = await services.database.run(
        lambda session: endpoints.rotate_secret(session, webhook_endpoint_id, keep_old=keep_old)
    )
    return endpoint_object(row, show_secret=True)


@router.post("/webhook_endpoints/{webhook_endpoint_id}/test")
async def send_test(
    webhook_endpoint_id: str, body: TestEndpoint, services: ServicesDep, _admin: AdminDep
) -> dict[str, Any]:
    """What the endpoint answered to a sample event, sent now and once.

    Raises:
        BadRequest: it gave no answer.
    """
    [event_type] = _check_test_type(body.event_type)
    row = await services.database.run(lambda session: endpoints.get(session, webhook_endpoint_id))
    event_id = new_id("evt")
    payload = outbox.build_payload(event_id, event_type, SAMPLE_JOB, now_s())
    try:
        status = await services.webhooks.send_sample(row, event_id, payload)
    except UnreachableError as error:
        raise BadRequest(
            f"The endpoint {row.id} gave no answer: {error}. Check its URL, and that it runs.",
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
