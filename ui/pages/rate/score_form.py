"""The form between verdict and storing: scores from 1 to 5 for each answer, the safety flag, a comment.

Native radio buttons and checkboxes, so that every keyboard and screen reader knows them. `rate.js` lets a digit score
the row that has the focus.
"""

from __future__ import annotations

from html import escape

from ui.pages.rate.state import DIMENSIONS, SIDES, RateSession
from ui.words.i18n import Language, text

_LETTERS = {"left": "A", "right": "B"}


def scoring_form(session: RateSession, focus: str) -> str:
    """The form for the pair in front of the rater; `focus` is the sign that sends the focus to its beginning."""
    language, busy = session.language, session.phase == "storing"
    comparison_id = escape(session.pair.comparison_id or "") if session.pair else ""
    scores = _scores(language, focus) if session.scores_wanted else ""
    store_focus = "" if session.scores_wanted else focus
    return (
        f'<form class="rate-form" data-do="store" data-keep="rate.{comparison_id}"><fieldset'
        f"{' disabled' if busy else ''}>{scores}{_unsafe(language)}{_comment(language)}"
        f'<div class="rate-row rate-end"><button type="button" class="live-button" id="rate-change" data-do="change" '
        f'data-key="Escape">{_said(language, "rate.change")} <kbd>Esc</kbd></button>'
        f'<button class="live-button live-primary" id="rate-store" data-key="Enter" {store_focus}>'
        f"{_said(language, 'rate.storing' if busy else 'rate.store')} <kbd>Enter</kbd></button></div></fieldset></form>"
    )


def _scores(language: Language, focus: str) -> str:
    rows = "".join(
        f'<div class="rate-dimension"><h3>{_said(language, f"rate.dimension.{name}")}</h3>'
        + "".join(_five(language, side, name, focus if (number, side) == (0, "left") else "") for side in SIDES)
        + "</div>"
        for number, name in enumerate(DIMENSIONS)
    )
    return (
        f'<div class="rate-scores"><h2>{_said(language, "rate.scores")}</h2>'
        f'<p class="tl-muted">{_said(language, "rate.scores_info")}</p>{rows}</div>'
    )


def _five(language: Language, side: str, name: str, focus: str) -> str:
    dimension = text(language, f"rate.dimension.{name}")
    label = _said(language, "rate.score_of", side=_LETTERS[side], dimension=dimension)
    field = f"{side}.{name}"
    marks = "".join(
        f'<label><input type="radio" name="{field}" value="{mark}" id="rate-{side}-{name}-{mark}"'
        f"{' ' + focus if mark == 1 else ''}><span>{mark}</span></label>"
        for mark in range(1, 6)
    )
    return (
        f'<fieldset class="rate-five rate-{side}" role="radiogroup" aria-label="{label}" data-score="{field}">'
        f'<span class="rate-letter" aria-hidden="true">{_LETTERS[side]}</span>{marks}</fieldset>'
    )


def _unsafe(language: Language) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" name="unsafe" value="{side}" id="rate-unsafe-{side}"> '
        f"{_said(language, 'rate.unsafe_side', side=_LETTERS[side])}</label>"
        for side in SIDES
    )
    return f'<fieldset class="rate-unsafe"><legend>{_said(language, "rate.unsafe")}</legend>{boxes}</fieldset>'


def _comment(language: Language) -> str:
    return (
        f'<label for="rate-comment">{_said(language, "rate.comment")}</label>'
        f'<textarea class="live-area" id="rate-comment" name="comment" rows="2" maxlength="4000" '
        f'placeholder="{_said(language, "rate.comment_placeholder")}"></textarea>'
    )


def _said(language: Language, key: str, **values: object) -> str:
    return escape(text(language, key, **values))
