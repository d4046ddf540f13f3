"""`/v1/campaigns`: fixed sets of prompts, answered once by a few models and rated pair by pair by several raters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from server.access.callers import CallerDep
from server.access.checkpoints import refuse_unknown
from server.access.keys import Caller
from server.app.services import Services, ServicesDep
from server.arena.campaigns import answers, assignments, store
from server.arena.campaigns.progress import campaign_object
from server.arena.campaigns.prompts import MAX_PROMPTS, read_prompt_file, read_prompt_list
from server.arena.comparisons.sampling import Sampling
from server.files.store import get_file
from server.storage.list_pages import build_list_page
from server.storage.tables import CampaignRow, is_id
from server.wire.errors import APIError, BadRequest

router = APIRouter(prefix="/v1", tags=["campaigns"])

MAX_TOKENS = 512
"""Default maximum length of an answer: people must read it."""
Order = Literal["asc", "desc"]
Limit = Annotated[int, Query(ge=1, le=100)]
Prompt = str | list[dict[str, Any]]
Rater = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")
]
T = TypeVar("T")


class CreateCampaign(BaseModel):
    """The body of `POST /v1/campaigns`."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")
    ]
    models: Annotated[
        list[str], Field(min_length=2, max_length=8, description="Models to compare; every pair is rated.")
    ]
    prompts: list[Prompt] | None = Field(None, description="Strings, or lists of messages.")
    prompts_file: str | None = Field(None, description="Id of a JSONL file with the prompts, instead of `prompts`.")
    limit: int | None = Field(None, ge=1, le=MAX_PROMPTS, description="Use only this many prompts, from the start.")
    raters_per_item: int = Field(
        2, ge=1, le=50, description="Raters per pair; with two or more, agreement is measured."
    )
    sampling: Sampling | None = Field(None, description="Sampling settings for all answers.")
    dimensions: bool = Field(True, description="Whether raters also give dimension scores.")


class CreateAssignment(BaseModel):
    """The optional body of `POST /v1/campaigns/{campaign_id}/assignments`."""

    model_config = ConfigDict(extra="forbid")

    rater: Rater | None = Field(None, description="The rater. Default: the API key's id.")


@router.post("/campaigns", status_code=201)
async def create_campaign(body: CreateCampaign, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Create a campaign; its answers are generated in the background."""
    await refuse_unknown(services.database, services.registry, caller, body.models)
    plan = store.CampaignPlan(
        name=body.name,
        models=_versions(services, body.models),
        prompts=await _prompts(services, body),
        raters_per_item=body.raters_per_item,
        sampling=_sampling(body.sampling),
        dimensions=body.dimensions,
    )
    made = await services.database.run(
        lambda session: campaign_object(session, store.create(session, plan, caller)),
    )
    services.campaign_work.set()
    return made


@router.get("/campaigns")
async def list_campaigns(
    services: ServicesDep, caller: CallerDep, after: str | None = None, limit: Limit = 20, order: Order = "desc"
) -> dict[str, Any]:
    """List the campaigns, newest first."""

    def read(session: Session) -> dict[str, Any]:
        rows, has_more = store.list_campaigns(session, caller, after=after, limit=limit, ascending=order == "asc")
        return build_list_page([campaign_object(session, row) for row in rows], has_more=has_more)

    return await services.database.run(read)


@router.get("/campaigns/{campaign_id}")
async def retrieve_campaign(campaign_id: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Get a campaign with its progress."""
    return await with_campaign(services, caller, campaign_id, campaign_object)


@router.get("/campaigns/{campaign_id}/answers")
async def list_answers(
    campaign_id: str,
    services: ServicesDep,
    caller: CallerDep,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "asc",
    status: Literal["pending", "done", "failed"] | None = None,
) -> dict[str, Any]:
    """List the campaign's answers by prompt, with their models' names; failed answers have an error."""

    def read(session: Session, row: CampaignRow) -> dict[str, Any]:
        page, has_more = answers.list_answers(
            session, row.id, after=after, limit=limit, ascending=order == "asc", status=status
        )
        return build_list_page(page, has_more=has_more)

    return await with_campaign(services, caller, campaign_id, read)


@router.post("/campaigns/{campaign_id}/close")
async def close_campaign(campaign_id: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Stop assigning pairs and generating answers. Pairs that are already assigned can still be rated."""
    return await with_campaign(services, caller, campaign_id, _build_object_after(store.close))


@router.post("/campaigns/{campaign_id}/reopen")
async def reopen_campaign(campaign_id: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Assign pairs again. A failed campaign's answers are generated again."""
    opened = await with_campaign(services, caller, campaign_id, _build_object_after(store.reopen))
    services.campaign_work.set()
    return opened


@router.delete("/campaigns/{campaign_id}")
async def delete_campaign(campaign_id: str, services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Delete a campaign without ratings, with its answers and invitations."""
    await with_campaign(services, caller, campaign_id, store.remove)
    return {"id": campaign_id, "object": "campaign.deleted", "deleted": True}


@router.post("/campaigns/{campaign_id}/assignments")
async def create_assignment(
    campaign_id: str, services: ServicesDep, caller: CallerDep, body: CreateAssignment | None = None
) -> dict[str, Any]:
    """Get the rater's next pair: the same until it is rated; null if none is left."""
    rater = caller.rater or (body and body.rater) or caller.key_id or "anonymous"

    def work(session: Session, row: CampaignRow) -> dict[str, Any]:
        return assignments.assign(session, row, rater, caller.key_id)

    return await with_campaign(services, caller, campaign_id, work)


async def with_campaign(
    services: Services, caller: Caller, campaign_id: str, work: Callable[[Session, CampaignRow], T]
) -> T:
    """Return the result of `work` on the campaign, in one transaction.

    Raises:
        NotFound: the campaign doesn't exist, or not for this caller.
    """
    return await services.database.run(lambda session: work(session, store.get(session, campaign_id, caller)))


def _versions(services: Services, models: list[str]) -> list[str]:
    versions = [services.registry.version_of(model) for model in models]
    if len(set(versions)) < len(versions):
        twice = next(version for version in versions if versions.count(version) > 1)
        raise BadRequest(
            f"{twice!r} is listed twice in models, directly or by an alias. List each model once.",
            param="models",
            code="duplicate_models",
        )
    return versions


def _sampling(sampling: Sampling | None) -> dict[str, Any]:
    given = sampling.sampling() if sampling else {}
    return given if given.keys() & {"max_tokens", "max_completion_tokens"} else given | {"max_tokens": MAX_TOKENS}


async def _prompts(services: Services, body: CreateCampaign) -> list[list[Any]]:
    if (body.prompts is None) == (body.prompts_file is None):
        raise BadRequest(
            "Send either `prompts`, a list, or `prompts_file`, the id of a file with prompts.",
            param="prompts",
            code="missing_required_parameter" if body.prompts is None else "invalid_value",
        )
    if body.prompts is not None:
        return read_prompt_list(body.prompts, body.limit)
    file_id = body.prompts_file or ""
    try:
        row = await services.database.run(lambda session: get_file(session, file_id if is_id(file_id) else ""))
    except APIError as error:
        raise BadRequest(
            f"File {file_id[:100]!r} does not exist. GET /v1/files lists the files.",
            param="prompts_file",
            code="file_not_found",
        ) from error
    return await run_in_threadpool(read_prompt_file, services.files.path(row.id), body.limit)


def _build_object_after(
    change: Callable[[Session, CampaignRow], None],
) -> Callable[[Session, CampaignRow], dict[str, Any]]:
    """Return the change and the resulting campaign."""

    def work(session: Session, row: CampaignRow) -> dict[str, Any]:
        change(session, row)
        session.flush()
        return campaign_object(session, row)

    return work
