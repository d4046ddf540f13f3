"""The campaigns page's HTML: the list, and one campaign with its progress, results and invitations.

Knows nothing of HTTP or Gradio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ui.html.templates import render
from ui.words.i18n import Language, text

Campaign = Mapping[str, Any]


def heading(campaign: Campaign | None, language: Language) -> Markup:
    """Return the page's title; for one campaign, its name and a link back."""
    return _render("heading", language, name=None if campaign is None else campaign["name"])


def listing(campaigns: Sequence[Campaign], language: Language) -> Markup:
    """Return the list of campaigns with their progress."""
    return _render("listing", language, campaigns=campaigns)


def progress(campaign: Campaign, failed: Sequence[Mapping[str, Any]], now_s: float, language: Language) -> Markup:
    """Return the progress of answers and ratings, what they wait for, and the buttons."""
    finish = campaign.get("estimated_finish") if campaign["status"] == "generating" else None
    minutes = None if finish is None else round((finish - now_s) / 60)
    reasons = [(answer.get("model"), (answer.get("error") or {}).get("message", "")) for answer in failed]
    return _render("progress", language, campaign=campaign, failed=reasons, minutes=minutes)


def results(campaign: Campaign, agreement: Mapping[str, Any] | None, language: Language) -> Markup:
    """Return the results so far, with a link to the leaderboard."""
    return _render("results", language, campaign=campaign, agreement=_agreement(agreement, language))


def _agreement(agreement: Mapping[str, Any] | None, language: Language) -> str:
    if agreement is None:
        return ""
    alpha, items = agreement["alpha"], agreement["items"]
    if alpha is None:
        return text(language, "campaigns.agreement_none", items=items)
    return text(language, "campaigns.agreement", items=items, alpha=f"{alpha:.2f}")


def invitations(
    campaign: Campaign,
    listed: Sequence[Mapping[str, Any]],
    made: Sequence[Mapping[str, Any]],
    number: int,
    now_s: float,
    language: Language,
) -> Markup:
    """Return the form for a new link, the links just created, and all invitations.

    number: how many links were created in this tab, so that the form is empty for the next.
    """
    votes = {one["rater"]: one["votes"] for one in campaign.get("raters", [])}
    rows = [(one, votes.get(one["rater"], 0), _state(one, now_s)) for one in listed]
    return _render("invitations", language, listed=rows, made=made, number=number)


def _state(invitation: Mapping[str, Any], now_s: float) -> str:
    if invitation.get("revoked_at"):
        return "revoked"
    return "expired" if invitation["expires_at"] <= now_s else "valid"


def notice(key: str, language: Language, forget: str = "", **values: object) -> Markup:
    """Return the message about the last action; `forget` is the form that was submitted successfully."""
    if not key:
        return Markup()
    return _render("notice", language, words=text(language, f"campaigns.{key}", **values), forget=forget)


def _render(block: str, language: Language, **values: object) -> Markup:
    return render(f"pages/campaigns/templates/{block}.html", language, **values)
