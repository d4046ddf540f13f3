"""The rating page's HTML, block by block, from the tab's state.

Knows nothing of HTTP or Gradio; `ui.pages.rate.page` defines what its buttons and forms do, `ui.frame.live` how
they reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ui.html.templates import render
from ui.pages.rate.state import DIMENSIONS, RateSession

LETTERS = {"left": "A", "right": "B"}
KEYS = {"left": ("1 ArrowLeft", "1 ←"), "right": ("2 ArrowRight", "2 →"), "tie": ("3 ArrowDown", "3 ↓"),
        "both_bad": ("4 0", "4 0")}  # fmt: skip
"""For each verdict, its keys: the browser's names, and the label on the button."""


def heading(session: RateSession) -> Markup:
    """Return the title, the rater, the campaign and the progress."""
    campaign = None if session.campaign is None else session.campaign.get("name", "")
    done, total = session.done, session.done + session.remaining
    return _render(
        "heading", session, invited=session.invited, campaign=campaign, rater=session.rater, done=done, total=total
    )


def last_vote(session: RateSession, now_s: float) -> Markup:
    """Return the last rating, the models' names, and the undo button while there is one."""
    if session.last is None:
        return Markup()
    return _render("last_vote", session, vote=session.last, left_s=session.last.undo_left_s(now_s))


def asking(session: RateSession) -> Markup:
    """Return the fields for name and prompt; '' for an invited rater."""
    return Markup() if session.invited else _render("asking", session, phase=session.phase)


def panes(session: RateSession) -> Markup:
    """Return the conversation and both answers, or why there are none."""
    if session.pair is None:
        return _no_pair(session)
    return _render(
        "panes",
        session,
        messages=[(str(message.get("role")), _content(message)) for message in session.pair.messages],
        pair=session.pair,
        verdict=session.verdict,
        streaming=session.phase == "streaming",
    )


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def _no_pair(session: RateSession) -> Markup:
    if session.phase != "finished":
        return Markup()
    closed = session.campaign is not None and session.campaign.get("status") == "closed"
    waiting = session.remaining > 0 or (session.campaign or {}).get("status") == "generating"
    key = "rate.closed" if closed else "rate.paused" if waiting else "rate.all_done"
    return _render("no_pair", session, key=key, can_look_again=waiting and not closed)


def voting(session: RateSession) -> Markup:
    """Return the four verdicts; after a choice, the scores; after the rating, the button for the next pair."""
    if session.phase not in ("voting", "scoring", "storing", "stored"):
        return Markup()
    return _render(
        "voting",
        session,
        phase=session.phase,
        chosen=session.verdict,
        verdicts=KEYS,
        letters=LETTERS,
        dimensions=DIMENSIONS,
        scores_wanted=session.scores_wanted,
        comparison_id=(session.pair.comparison_id or "") if session.pair else "",
    )


def notice(session: RateSession) -> Markup:
    """Return what went wrong, or the current message; screen readers announce it."""
    trouble = session.trouble
    return _render(
        "notice",
        session,
        problem=trouble,
        is_gone=trouble is not None and session.invited and trouble.kind == "unauthorized",
        can_retry=session.invited and session.pair is None,
        key=session.notice,
    )


def _render(block: str, session: RateSession, **values: object) -> Markup:
    """Render a template; `turn` is the token of `data-focus`, which moves the focus to the current step."""
    return render(f"pages/rate/templates/{block}.html", session.language, turn=session.turn, **values)
