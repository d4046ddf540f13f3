"""`/v1/fine_tuning/jobs` as in OpenAI's API. https://platform.openai.com/docs/api-reference/fine-tuning

This module has the paths and parameters; `jobs/create/body.py` checks requests, and `jobs/` runs jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session

from server.access.callers import CallerDep
from server.access.checkpoints import is_usable_by
from server.app.services import Services, ServicesDep
from server.jobs import listing, states
from server.jobs.create.body import CreateJob
from server.jobs.create.creator import RequestOrigin
from server.jobs.objects import checkpoint_object, event_object, job_object
from server.storage.list_pages import build_list_page, fetch_page
from server.storage.tables import JobCheckpointRow, JobEventRow, JobRow

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine tuning"])

PAUSE_WAIT_S = 10.0
"""How long a response waits for a running job's checkpoint, so that it usually shows the job as paused."""
_PAUSE_POLL_S = 0.1
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": CreateJob.model_json_schema()}}}}

AfterQuery = Annotated[str | None, Query(pattern=r"^[!-~]{1,200}$", description="The last id of the previous page.")]
LimitQuery = Annotated[int, Query(ge=1, le=1000, description="Maximum items per page.")]


@router.post("", openapi_extra=_BODY)
async def create_job(request: Request, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Create a job and queue it. Repeated requests don't create a second job."""
    row = await services.jobs.create(await request.body(), RequestOrigin.from_headers(caller, request.headers))
    return await services.database.run(lambda session: _build_object(session, services, row.id))


@router.get("")
async def list_jobs(
    request: Request, services: ServicesDep, after: AfterQuery = None, limit: LimitQuery = 20
) -> dict[str, Any]:
    """List the jobs, newest first. Filter with `metadata[k]=v`, repeatable; `metadata=null` selects jobs without
    metadata."""
    wanted = listing.parse_metadata_filters(request.query_params.multi_items())

    def page(session: Session) -> dict[str, Any]:
        where = [listing.build_condition(session, *one) for one in wanted]
        rows, has_more = fetch_page(session, JobRow, *where, after=after, limit=limit)
        places = listing.find_queue_positions(session, rows)
        return build_list_page(
            [job_object(row, services.settings, queue_position=places.get(row.id)) for row in rows], has_more=has_more
        )

    return await services.database.run(page)


@router.get("/{job_id}")
async def retrieve_job(job_id: str, services: ServicesDep) -> dict[str, Any]:
    """Get a job."""
    return await services.database.run(lambda session: _build_object(session, services, job_id))


@router.post("/{job_id}/cancel")
async def cancel_job(job_id: str, services: ServicesDep) -> dict[str, Any]:
    """Cancel a job permanently; a running one is stopped."""
    return await _change(services, job_id, states.cancel)


@router.post("/{job_id}/resume")
async def resume_job(job_id: str, services: ServicesDep) -> dict[str, Any]:
    """Resume a job: it returns to its place in the queue and continues from its checkpoint."""
    return await _change(services, job_id, states.resume)


@router.post("/{job_id}/pause")
async def pause_job(job_id: str, services: ServicesDep) -> dict[str, Any]:
    """Pause a job after a checkpoint, so that others can run. Responds when it is paused, or after 10 s."""
    shown = await _change(services, job_id, states.pause)
    deadline = asyncio.get_running_loop().time() + PAUSE_WAIT_S
    while shown["tuneloop"]["state"] == "pausing" and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(_PAUSE_POLL_S)
        shown = await services.database.run(lambda session: _build_object(session, services, job_id))
    return shown


@router.get("/{job_id}/events")
async def list_events(
    job_id: str, services: ServicesDep, after: AfterQuery = None, limit: LimitQuery = 20
) -> dict[str, Any]:
    """List the job's events, newest first."""

    def page(session: Session) -> dict[str, Any]:
        states.read(session, job_id)
        rows, has_more = fetch_page(session, JobEventRow, JobEventRow.job_id == job_id, after=after, limit=limit)
        return build_list_page([event_object(row) for row in rows], has_more=has_more)

    return await services.database.run(page)


@router.get("/{job_id}/checkpoints")
async def list_checkpoints(
    job_id: str, services: ServicesDep, caller: CallerDep, after: AfterQuery = None, limit: LimitQuery = 10
) -> dict[str, Any]:
    """List the job's served checkpoints that the caller may use, newest first."""

    def page(session: Session) -> dict[str, Any]:
        states.read(session, job_id)
        where = [JobCheckpointRow.job_id == job_id]
        if caller.key_id is not None:
            where.append(is_usable_by(caller.project))
        rows, has_more = fetch_page(session, JobCheckpointRow, *where, after=after, limit=limit)
        return build_list_page([checkpoint_object(row) for row in rows], has_more=has_more)

    return await services.database.run(page)


async def _change(services: Services, job_id: str, change: Callable[[Session, str], JobRow]) -> dict[str, Any]:
    """Change the job's status, wake the runner, and return the job."""
    await services.database.run(lambda session: change(session, job_id))
    services.runner.wake()
    services.webhooks.wake()  # a cancelled job has ended
    return await services.database.run(lambda session: _build_object(session, services, job_id))


def _build_object(session: Session, services: Services, job_id: str) -> dict[str, Any]:
    row = states.read(session, job_id)
    return job_object(row, services.settings, queue_position=listing.find_queue_positions(session, [row]).get(row.id))
