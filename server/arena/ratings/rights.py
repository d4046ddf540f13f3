"""Who may rate which pair, and who may change which rating.

    a pair assigned by a campaign      only that rater; with an invitation, if it was requested with one
    a rating sent with an invitation   its rater, with an invitation to the same campaign
    a rating sent with an API key      that key
    a rating on a keyless server       anyone who gives the rater's name

Elsewhere a rater's name is free text, so it grants nothing by itself.
"""

from __future__ import annotations

from server.access.keys import Caller
from server.storage.tables import ComparisonRow, RatingRow
from server.wire.errors import Conflict, Forbidden

_INVITATION = "inv_"
"""Prefix of the ids of invitations."""


def refuse_foreign_pair(comparison: ComparisonRow, rater: str, caller: Caller) -> None:
    """Check that this rater, with this caller, may rate the comparison.

    Raises:
        Conflict: it is assigned to another rater.
        Forbidden: it was assigned with an invitation, and the caller has none.
    """
    if comparison.assigned_to is None:
        return
    if comparison.assigned_to != rater:
        raise Conflict(
            f"{comparison.id} is assigned to another rater, who rates it blind. Request your own pair: POST "
            f"/v1/campaigns/{comparison.campaign_id}/assignments.",
            code="assigned_to_another",
        )
    if _is_invitation(comparison.created_by) and caller.invitation is None:
        raise Forbidden(
            f"{comparison.id} was assigned to {rater!r} by an invitation, so it can only be rated with an "
            "invitation. Use that invitation's link, or a new one for the same rater.",
            code="invitation_required",
        )


def refuse_foreign_rating(row: RatingRow, caller: Caller) -> None:
    """Check that the caller may supersede or withdraw this rating.

    Raises:
        Forbidden: someone else sent it.
    """
    if row.cast_by is None or row.cast_by == caller.key_id:
        return
    if _is_invitation(row.cast_by):
        if caller.rater == row.rater and caller.campaign == row.campaign:
            return  # with a newer link
        raise Forbidden(
            f"{row.id} was made with an invitation, so only that rater's invitation can change it. Use the "
            "invitation's link.",
            code="vote_of_another",
        )
    raise Forbidden(
        f"{row.id} was made with another API key, and only that key can change it. Use that key.",
        code="vote_of_another",
    )


def _is_invitation(key_id: str | None) -> bool:
    return key_id is not None and key_id.startswith(_INVITATION)
