"""Invitations of raters to one campaign: a token of 256 random bits in a link. Only its hash is stored.

    GET  /v1/invitation                      the rater and the campaign
    POST /v1/campaigns/{its}/assignments     the next pair
    GET  /v1/comparisons/{assigned}          that pair again
    POST /v1/comparisons/{assigned}/ratings  rate it
    POST /v1/ratings/{its}/withdraw          withdraw the rating

Every other request is refused.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.access.keys import Caller, Invitation
from server.arena.campaigns import assignments
from server.storage.database import Database
from server.storage.tables import DEFAULT_PROJECT, CampaignInvitationRow, CampaignRow, RatingRow, new_id, now_s
from server.wire.errors import Forbidden, NotFound, Unauthorized

TOKEN_PREFIX = "tl-invite-"  # noqa: S105 (what tokens begin with)
LASTS_S = 30 * 24 * 3600
MAX_LASTS_S = 365 * 24 * 3600

_ID = r"[A-Za-z0-9_-]{1,100}"
_RULES = (
    ("GET", re.compile(r"/v1/invitation\Z"), None),
    ("POST", re.compile(rf"/v1/campaigns/(?P<id>{_ID})/assignments\Z"), "campaign"),
    ("GET", re.compile(rf"/v1/comparisons/(?P<id>{_ID})\Z"), "comparison"),
    ("POST", re.compile(rf"/v1/comparisons/(?P<id>{_ID})/ratings\Z"), "comparison"),
    ("POST", re.compile(rf"/v1/ratings/(?P<id>{_ID})/withdraw\Z"), "rating"),
)


def create(
    session: Session, campaign_id: str, rater: str, *, lasts_s: int, created_by: str | None
) -> tuple[CampaignInvitationRow, str]:
    """Create an invitation; return it with its token, which is shown only this once."""
    token, now = TOKEN_PREFIX + secrets.token_urlsafe(32), now_s()
    row = CampaignInvitationRow(
        id=new_id("inv"),
        campaign_id=campaign_id,
        rater=rater,
        sha256=_hash(token),
        created_at=now,
        expires_at=now + lasts_s,
        created_by=created_by,
    )
    session.add(row)
    session.flush()
    return row, token


def revoke(session: Session, campaign_id: str, invitation_id: str) -> None:
    """Revoke the token. The invitation stays in the list. Raises: NotFound."""
    where = CampaignInvitationRow.id == invitation_id, CampaignInvitationRow.campaign_id == campaign_id
    row = session.scalar(select(CampaignInvitationRow).where(*where))
    if row is None:
        raise NotFound(
            f"The campaign {campaign_id} has no invitation {invitation_id[:200]!r}. "
            f"GET /v1/campaigns/{campaign_id}/invitations lists them.",
            code="invitation_not_found",
            param="invitation_id",
        )
    row.revoked_at = row.revoked_at or now_s()


def invitation_object(row: CampaignInvitationRow, *, token: str | None = None) -> dict[str, Any]:
    """Return the invitation as the API's object; `token` is only for one that was just created."""
    return {
        "id": row.id,
        "object": "campaign.invitation",
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "campaign": row.campaign_id,
        "rater": row.rater,
    } | ({"token": token, "path": f"/rate?invite={token}"} if token else {})


async def authenticate(database: Database, token: str, method: str, path: str) -> Caller:
    """Return the caller with this token, for this request.

    Raises:
        Unauthorized: the token is invalid, expired or revoked.
        Forbidden: it doesn't allow this request.
    """

    def work(session: Session) -> Caller:
        row = session.scalar(select(CampaignInvitationRow).where(CampaignInvitationRow.sha256 == _hash(token)))
        if row is None or row.revoked_at is not None or row.expires_at <= now_s():
            why = "mistyped" if row is None else "expired" if row.revoked_at is None else "revoked"
            raise Unauthorized(f"The invitation is {why}. Ask the person who invited you for a new link.")
        invitation = Invitation(row.id, row.campaign_id, row.rater)
        if not _is_allowed(session, invitation, method, path):
            raise Forbidden(
                "An invitation only allows rating pairs of its own campaign. For anything else use an API key; the "
                "server's operator can create one with `tuneloop keys create`.",
                code="invitation_only_rates",
            )
        project = session.scalar(select(CampaignRow.project).where(CampaignRow.id == row.campaign_id))
        return Caller(row.id, project or DEFAULT_PROJECT, is_admin=False, invitation=invitation)

    return await database.run(work)


def _is_allowed(session: Session, invitation: Invitation, method: str, path: str) -> bool:
    for allowed, pattern, kind in _RULES:
        if allowed == method and (match := pattern.match(path)):
            return kind is None or _belongs_to(session, invitation, kind, match["id"])
    return False


def _belongs_to(session: Session, invitation: Invitation, kind: str, identifier: str) -> bool:
    if kind == "campaign":
        return identifier == invitation.campaign_id
    if kind == "rating":
        rating = session.scalar(select(RatingRow).where(RatingRow.id == identifier))
        if rating is None or rating.rater != invitation.rater:
            return False
        identifier = rating.comparison_id
    return assignments.is_assigned(session, identifier, invitation.campaign_id, invitation.rater)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
