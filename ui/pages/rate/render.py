"""The rating page's HTML, block by block, from the tab's state.

Knows nothing of HTTP or Gradio; what its buttons and forms mean stands in `ui.pages.rate.page`, how they reach it in
`ui.frame.live`.
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
"""For each verdict: the keys as the browser names them, and as the button shows them."""


def heading(session: RateSession) -> Markup:
    """Title, and who rates where and how far they are."""
    campaign = None if session.campaign is None else session.campaign.get("name", "")
    done, total = session.done, session.done + session.remaining
    return _render(
        "heading", session, invited=session.invited, campaign=campaign, rater=session.rater, done=done, total=total
    )


def last_vote(session: RateSession, now_s: float) -> Markup:
    """What was stored last, who was who, and the way back while there is one."""
    if session.last is None:
        return Markup()
    return _render("last_vote", session, vote=session.last, left_s=session.last.undo_left_s(now_s))


def asking(session: RateSession) -> Markup:
    """The rater's name and prompt; nothing for an invited rater."""
    return Markup() if session.invited else _render("asking", session, phase=session.phase)


def panes(session: RateSession) -> Markup:
    """The conversation and both answers; or why there are none."""
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
    """The four verdicts, and after one is chosen the scores; after storing the way on."""
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
    """What went wrong, or the sentence to read now; read aloud by screen readers."""
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
    """`turn` is the token of `data-focus`, which sends the focus to where the rater has just come."""
    return render(f"pages/rate/templates/{block}.html", session.language, turn=session.turn, **values)
