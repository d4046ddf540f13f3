"""Says who may vote on which pair, and who may change which vote.

    a pair that a campaign gave to a rater    that rater alone; by an invitation, where it was asked for by one
    a vote that came by an invitation         its rater with an invitation to the same campaign
    a vote that came with an API key          that key
    a vote of a server without keys           whoever gives the rater's name

A rater's name is free text elsewhere, so it opens nothing by itself. Knows no HTTP beyond the errors it raises.
"""

from __future__ import annotations

from server.access.keys import Caller
from server.storage.tables import ComparisonRow, RatingRow
from server.wire.errors import Conflict, Forbidden

_INVITATION = "inv_"
"""What the ids of invitations begin with."""


def refuse_foreign_pair(comparison: ComparisonRow, rater: str, caller: Caller) -> None:
    """Returns when this rater, coming so, may vote on the comparison.

    Raises:
        Conflict: it was given to another rater.
        Forbidden: it was given to this rater by an invitation, and the caller has none.
    """
    if comparison.assigned_to is None:
        return
    if comparison.assigned_to != rater:
        raise Conflict(
            f"{comparison.id} was given to another rater, who judges it blind and alone. Ask for a pair of your own: "
            f"POST /v1/campaigns/{comparison.campaign_id}/assignments.",
            code="assigned_to_another",
        )
    if _is_invitation(comparison.created_by) and caller.invitation is None:
        raise Forbidden(
            f"{comparison.id} was given to {rater!r} by an invitation, so the vote on it comes by an invitation, too. "
            "Open the link of that invitation, or of a new one for the same rater.",
            code="invitation_required",
        )


def refuse_foreign_vote(row: RatingRow, caller: Caller) -> None:
    """Returns when the caller may supersede this vote or take it back.

    Raises:
        Forbidden: somebody else cast it.
    """
    if row.cast_by is None or row.cast_by == caller.key_id:
        return
    if _is_invitation(row.cast_by):
        if caller.rater == row.rater and caller.campaign == row.campaign:
            return  # by another link, made since
        raise Forbidden(
            f"{row.id} came by an invitation, and only its rater's invitation changes it. Open the invitation's link.",
            code="vote_of_another",
        )
    raise Forbidden(
        f"{row.id} was cast with another API key, and only that key changes it. Use the key that cast it.",
        code="vote_of_another",
    )


def _is_invitation(key_id: str | None) -> bool:
    return key_id is not None and key_id.startswith(_INVITATION)
