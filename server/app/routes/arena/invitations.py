"""`/v1/campaigns/{id}/invitations` and `/v1/invitation`: raters' access to a campaign."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from server.access.callers import CallerDep
from server.app.routes.arena.campaigns import Rater, with_campaign
from server.app.services import ServicesDep
from server.arena.campaigns import assignments, invitations
from server.storage.list_pages import build_list_page, fetch_page
from server.storage.tables import CampaignInvitationRow, CampaignRow
from server.wire.errors import Forbidden

router = APIRouter(prefix="/v1", tags=["campaigns"])


class CreateInvitation(BaseModel):
    """The body of `POST /v1/campaigns/{campaign_id}/invitations`."""

    model_config = ConfigDict(extra="forbid")

    rater: Rater = Field(description="The rater that the link is for.")
    expires_after_s: int = Field(
        invitations.LASTS_S, ge=60, le=invitations.MAX_LASTS_S, description="Seconds until the link expires."
    )


@router.post("/campaigns/{campaign_id}/invitations", status_code=201)
async def create_invitation(
    campaign_id: str, body: CreateInvitation, services: ServicesDep, caller: CallerDep
) -> dict[str, Any]:
    """Create a link for one rater. Its token is only shown once."""

    def work(session: Session, row: CampaignRow) -> dict[str, Any]:
        made, token = invitations.create(
            session, row.id, body.rater, lasts_s=body.expires_after_s, created_by=caller.key_id
        )
        return invitations.invitation_object(made, token=token)

    return await with_campaign(services, caller, campaign_id, work)


@router.get("/campaigns/{campaign_id}/invitations")
async def list_invitations(
    campaign_id: str,
    services: ServicesDep,
    caller: CallerDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List the campaign's invitations, newest first, without their tokens."""

    def read(session: Session, row: CampaignRow) -> dict[str, Any]:
        of_campaign = CampaignInvitationRow.campaign_id == row.id
        rows, has_more = fetch_page(session, CampaignInvitationRow, of_campaign, after=after, limit=limit)
        return build_list_page([invitations.invitation_object(invitation) for invitation in rows], has_more=has_more)

    return await with_campaign(services, caller, campaign_id, read)


@router.delete("/campaigns/{campaign_id}/invitations/{invitation_id}")
async def revoke_invitation(
    campaign_id: str, invitation_id: str, services: ServicesDep, caller: CallerDep
) -> dict[str, Any]:
    """Revoke the link. Ratings made with it are kept."""
    await with_campaign(
        services, caller, campaign_id, lambda session, row: invitations.revoke(session, row.id, invitation_id)
    )
    return {"id": invitation_id, "object": "campaign.invitation.deleted", "deleted": True}


@router.get("/invitation")
async def retrieve_own_invitation(services: ServicesDep, caller: CallerDep) -> dict[str, Any]:
    """Get what the invited rater may see: the campaign's name and status, and the rater's progress."""
    invitation = caller.invitation
    if invitation is None:
        raise Forbidden(
            "This endpoint requires a rater's invitation, sent as `Authorization: Bearer tl-invite-…`. POST "
            "/v1/campaigns/{campaign_id}/invitations creates one.",
            code="invitation_required",
        )

    def read(session: Session, row: CampaignRow) -> dict[str, Any]:
        counted = assignments.get_progress(session, row, invitation.rater)
        shown = {"id": row.id, "name": row.name, "status": row.status, "dimensions": row.dimensions}
        return {"object": "invitation", "rater": invitation.rater, "campaign": shown} | {
            "done": counted.done,
            "remaining": counted.remaining,
        }

    return await with_campaign(services, caller, invitation.campaign_id, read)
