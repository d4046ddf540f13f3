"""The rating page's HTML, block by block, from the tab's state.

Every foreign word is escaped here. Knows nothing of HTTP or Gradio; what its buttons and forms mean stands in
`ui.pages.rate.page`, how they reach it in `ui.frame.live`.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ui.html import elements
from ui.pages.rate.score_form import scoring_form
from ui.pages.rate.state import SIDES, VERDICTS, Answer, Pair, RateSession
from ui.server_client import Problem
from ui.words.i18n import Language, text

LETTERS = {"left": "A", "right": "B"}
KEYS = {"left": ("1 ArrowLeft", "1 ←"), "right": ("2 ArrowRight", "2 →"), "tie": ("3 ArrowDown", "3 ↓"),
        "both_bad": ("4 0", "4 0")}  # fmt: skip
"""For each verdict: the keys as the browser names them, and as the button shows them."""


def said(language: Language, key: str, **values: object) -> str:
    """A text, escaped."""
    return escape(text(language, key, **values))


def heading(session: RateSession) -> str:
    """Title, and who rates where and how far they are."""
    language = session.language
    title = f'<h1 class="tl-title">{said(language, "rate.title")}</h1>'
    if not session.invited:
        return f'{title}<p class="tl-muted">{said(language, "rate.intro")}</p>'
    if session.campaign is None:
        return title
    done, total = session.done, session.done + session.remaining
    words = said(language, "rate.progress", done=done, total=total)
    invited = said(language, "rate.invited", rater=session.rater, campaign=session.campaign.get("name", ""))
    return (
        f'{title}<div class="rate-progress"><p>{invited}</p>'
        f'<p id="rate-count">{words}</p><progress class="live-bar" value="{done}" max="{max(total, 1)}" '
        f'aria-labelledby="rate-count"></progress></div>'
    )


def last_vote(session: RateSession, now_s: float) -> str:
    """What was stored last, who was who, and the way back while there is one."""
    if session.last is None:
        return ""
    language, last = session.language, session.last
    words = f"{text(language, 'rate.stored')} {text(language, f'rate.stored.{last.verdict}')}"
    names = "".join(
        f"<li>{said(language, 'rate.was', side=LETTERS[side])} <b>{escape(model)}</b></li>"
        for side, model in zip(SIDES, (last.left_model, last.right_model), strict=True)
    )
    return (
        f'<div class="rate-last"><div><p>✓ {escape(words)}</p><ul>{names}</ul></div>'
        f"{_undo(language, last.rating_id, last.undo_left_s(now_s))}</div>"
    )


def _undo(language: Language, rating_id: str, left_s: int) -> str:
    if left_s <= 0:
        return ""
    clock = f'<span data-clock="{escape(rating_id)}" data-countdown="{left_s}">{left_s}</span>'
    left = said(language, "rate.undo_left", clock="\0").replace("\0", clock)
    return (
        f'<div data-until-zero><button type="button" class="live-button" id="rate-undo" data-do="undo" data-key="u">'
        f'{said(language, "rate.undo")} <kbd>U</kbd></button> <span class="tl-muted" aria-hidden="true">{left}</span>'
        f"</div>"
    )


def asking(session: RateSession) -> str:
    """The rater's name and prompt; nothing for an invited rater."""
    if session.invited:
        return ""
    language = session.language
    busy = session.phase in ("streaming", "storing")
    send = f'class="live-button live-primary" id="rate-send">{said(language, "rate.send")}'
    stop = f'type="button" class="live-button" id="rate-stop" data-do="stop">{said(language, "rate.stop")}'
    return (
        f'<form class="rate-ask" data-do="ask" data-keep="rate.ask">'
        f'<label for="rate-prompt">{said(language, "rate.prompt")}</label>'
        f'<textarea class="live-area" id="rate-prompt" name="prompt" rows="3" data-enter aria-describedby="rate-hint" '
        f'{_focus(session, "asking")} placeholder="{said(language, "rate.prompt_placeholder")}"></textarea>'
        f'<div class="rate-row"><p class="tl-muted" id="rate-hint">{said(language, "rate.prompt_hint")}</p>'
        f"<button {stop if busy else send}</button></div>"
        f'<div class="rate-name"><label for="rate-name">{said(language, "rate.name")}</label>'
        f'<input class="live-field" id="rate-name" name="rater" maxlength="64" autocomplete="name" '
        f'data-lasting="rater" data-tell="name" '
        f'aria-describedby="rate-name-info">'
        f'<p class="tl-muted" id="rate-name-info">{said(language, "rate.name_info")}</p></div></form>'
    )


def panes(session: RateSession) -> str:
    """The conversation and both answers; or why there are none."""
    if session.pair is None:
        return _no_pair(session)
    language, pair = session.language, session.pair
    both = "".join(_pane(session, pair, side) for side in SIDES)
    return f'{_question(language, pair.messages)}<div class="rate-panes">{both}</div>'


def _question(language: Language, messages: tuple[Mapping[str, Any], ...]) -> str:
    if not messages:
        return ""
    turns = "".join(
        f'<div class="rate-turn rate-{escape(str(message.get("role")))}"><b>{_role(language, message)}</b>'
        f'<div dir="auto">{escape(_content(message))}</div></div>'
        for message in messages
    )
    return (
        f'<section class="rate-question" aria-label="{said(language, "rate.question")}" tabindex="0">{turns}</section>'
    )


def _role(language: Language, message: Mapping[str, Any]) -> str:
    role = str(message.get("role"))
    return said(language, f"rate.role.{role}") if role in ("system", "user", "assistant") else escape(role)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def _pane(session: RateSession, pair: Pair, side: str) -> str:
    language, answer, letter = session.language, pair.answer(side), LETTERS[side]
    preferred = session.verdict == side
    name = said(language, "rate.hidden")
    label = f'<span class="tl-muted">{name}</span>'
    if answer.model is not None:
        label = f'<span class="rate-model" title="{escape(answer.model)}">{escape(answer.model)}</span>'
    chip = f'<span class="rate-chip">✓ {said(language, "rate.preferred")}</span>' if preferred else ""
    empty = f'<span class="tl-muted">{said(language, "rate.empty_answer")}</span>' if answer.finished else ""
    problem = elements.problem_box(answer.problem, language) if answer.problem else ""
    title = said(language, "rate.answer", side=letter)
    return (
        f'<section class="rate-pane rate-{side}{" rate-preferred" if preferred else ""}" aria-label="{title}">'
        f'<header><span class="rate-letter" aria-hidden="true">{letter}</span>{label}{chip}</header>'
        f'<div class="rate-scroll" tabindex="0" role="group" aria-label="{title}">'
        f'<div class="rate-text" dir="auto">{escape(answer.content) or empty}</div></div>{problem}'
        f'<footer class="rate-status">{_status(language, answer, session.phase == "streaming")}</footer></section>'
    )


def _status(language: Language, answer: Answer, streaming: bool) -> str:
    if answer.problem:
        return said(language, "rate.failed")
    if answer.finished:
        cut = f'<span class="rate-chip rate-warn">{said(language, "rate.cut")}</span>' if answer.cut else ""
        return said(language, "rate.finished") + cut
    if not streaming:
        return ""
    return f'<span class="tl-dot"></span>{said(language, "rate.writing" if answer.content else "rate.waiting")}'


def _no_pair(session: RateSession) -> str:
    language = session.language
    if session.phase != "finished":
        return ""
    closed = session.campaign is not None and session.campaign.get("status") == "closed"
    waiting = session.remaining > 0 or (session.campaign or {}).get("status") == "generating"
    key = "rate.closed" if closed else "rate.paused" if waiting else "rate.all_done"
    again = (
        f'<button type="button" class="live-button" data-do="next" {_focus(session, "finished")}>'
        f"{said(language, 'rate.look_again')}</button>"
    )
    return (
        f'<div class="tl-empty-state"><h2>{said(language, key)}</h2><p>{said(language, f"{key}_info")}</p>'
        f"{again if waiting and not closed else ''}</div>"
    )


def voting(session: RateSession) -> str:
    """The four verdicts, and after one is chosen the scores; after storing the way on."""
    if session.phase == "stored":
        return (
            f'<div class="rate-row rate-end"><button type="button" class="live-button live-primary" id="rate-next" '
            f'data-do="next" data-key="n Enter" {_focus(session, "stored")}>'
            f"{said(session.language, 'rate.next_prompt')} <kbd>Enter</kbd></button></div>"
        )
    if session.phase not in ("voting", "scoring", "storing"):
        return ""
    busy = session.phase == "storing"
    buttons = "".join(_verdict(session, verdict, busy) for verdict in VERDICTS)
    which = said(session.language, "rate.which")
    keys = (
        f'<label class="rate-keys" title="{said(session.language, "rate.keys_info")}">'
        f'<input type="checkbox" id="rate-keys" checked> {said(session.language, "rate.keys")}</label>'
    )
    form = "" if session.phase == "voting" else scoring_form(session, _focus(session, "scoring"))
    return (
        f'<div class="rate-row"><h2 class="rate-which" id="rate-which" tabindex="-1" {_focus(session, "voting")}>'
        f'{which}</h2>{keys}</div><div class="rate-verdicts" role="group" aria-labelledby="rate-which">{buttons}</div>'
        f"{form}"
    )


def _verdict(session: RateSession, verdict: str, busy: bool) -> str:
    keys, shown = KEYS[verdict]
    hints = "".join(f"<kbd>{key}</kbd>" for key in shown.split())
    return (
        f'<button type="button" class="live-button rate-verdict rate-say-{verdict}" id="rate-verdict-{verdict}" '
        f'data-do="verdict" data-verdict="{verdict}" data-key="{keys}" aria-keyshortcuts="{keys}" '
        f'aria-pressed="{str(session.verdict == verdict).lower()}"{" disabled" if busy else ""}>'
        f'{said(session.language, f"rate.verdict.{verdict}")}<span aria-hidden="true">{hints}</span></button>'
    )


def notice(session: RateSession) -> str:
    """What went wrong, or the sentence to read now; read aloud by screen readers."""
    if session.trouble is not None:
        return _trouble(session, session.trouble)
    if session.notice is None:
        return ""
    if session.notice == "rate.ready":  # the question under the answers shows it to those who see
        return f'<p class="live-hidden">{said(session.language, session.notice)}</p>'
    return elements.notice(session.notice, session.language)


def _trouble(session: RateSession, trouble: Problem) -> str:
    language = session.language
    if session.invited and trouble.kind == "unauthorized":
        gone = "rate.invitation_gone"
        words = f"<h2>{said(language, gone)}</h2><p>{said(language, f'{gone}_info')}</p>"
        return f'<div class="tl-empty-state" role="alert">{words}</div>'
    retry = (
        f'<p><button type="button" class="live-button" data-do="retry">{said(language, "rate.retry")}</button></p>'
        if session.invited and session.pair is None
        else ""
    )
    return elements.problem_box(trouble, language) + retry


def _focus(session: RateSession, phase: str) -> str:
    """The sign that sends the focus here, where this is the phase that the rater has just come to."""
    return f'data-focus="{session.turn}"' if session.turn and session.phase == phase else ""
