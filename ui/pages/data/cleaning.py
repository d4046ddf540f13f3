"""The data page's cleaning: the form, the settings that it means, and the report. Every foreign word is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ui.frame.live import Action
from ui.html import elements
from ui.html.markup import button, options, said, working
from ui.pages.data.render import counts_table
from ui.pages.data.state import DataSession
from ui.words.i18n import Language, text

SWITCHES = ("exact_duplicates", "normalize_unicode", "normalize_whitespace")
FIELDS = (
    ("near_duplicates", "0.8", True),
    ("min_answer_words", "1", False),
    ("max_chars", "", True),
    ("languages", "", True),
)
"""(name, what stands in it, whether a hint stands below)"""
TABLES = (("data.dropped", "dropped"), ("data.changed", "changed"), ("data.with_personal", "personal_data"))
POLICIES = ("flag", "mask", "drop", "ignore")


def cleaning(session: DataSession) -> str:
    """The form, and what came of it."""
    if session.file is None:
        return ""
    language = session.language
    return (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "data.cleaning")}</h2>'
        f'<p class="tl-muted">{said(language, "data.cleaning_intro")}</p>{_form(session)}{_result(session)}</section>'
    )


def settings_of(action: Action) -> dict[str, Any]:
    """The settings that the form's fields mean. What isn't a number goes as it is: the server says what is wrong."""
    switched = action.chosen("switches")
    languages = [code for code in action.text("languages").replace(",", " ").split() if code]
    return {
        "near_duplicates": _number(action.text("near_duplicates")),
        "min_answer_words": _number(action.text("min_answer_words")) or 0,
        "max_chars": _number(action.text("max_chars")),
        "languages": languages,
        "personal_data": action.text("personal_data") or "flag",
        **{name: name in switched for name in SWITCHES},
    }


def _number(text: str) -> Any:
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _form(session: DataSession) -> str:
    language = session.language
    fields = "".join(_field(language, name, value, hint) for name, value, hint in FIELDS)
    policies = [(policy, text(language, f"data.personal_data.{policy}")) for policy in POLICIES]
    choice = (
        f'<div><label class="live-label" for="data-personal">{said(language, "data.personal_data")}</label>'
        f'<select class="live-select" id="data-personal" name="personal_data">{options(policies, "flag")}</select>'
        "</div>"
    )
    switches = "".join(
        f'<label><input type="checkbox" name="switches" value="{name}" checked> '
        f"{said(language, f'data.{name}')}</label>"
        for name in SWITCHES
    )
    busy = session.cleaning
    send = (
        f'<button class="live-button live-primary" id="data-clean"{" disabled" if busy else ""}>'
        f"{said(language, 'data.clean')}</button>"
    )
    return (
        f'<form data-do="clean" data-keep="data.clean"><div class="data-fields">{fields}{choice}</div>'
        f'<div class="live-row data-switches">{switches}</div>'
        f'<div class="live-row">{send}{working(language, "data.clean_working") if busy else ""}</div></form>'
    )


def _field(language: Language, name: str, value: str, hint: bool) -> str:
    told = f'<p class="live-hint" id="data-{name}-hint">{said(language, f"data.{name}_hint")}</p>' if hint else ""
    described = f' aria-describedby="data-{name}-hint"' if hint else ""
    mode = "text" if name == "languages" else "decimal"
    return (
        f'<div><label class="live-label" for="data-{name}">{said(language, f"data.{name}")}</label>'
        f'<input class="live-field" id="data-{name}" name="{name}" value="{escape(value)}" inputmode="{mode}" '
        f'autocomplete="off"{described}>{told}</div>'
    )


def _result(session: DataSession) -> str:
    language = session.language
    if session.cleaning_problem:
        return elements.problem_box(session.cleaning_problem, language)
    if session.cleaned is None:
        return ""
    return _cleaned(language, session.cleaned)


def _cleaned(language: Language, cleaned: Mapping[str, Any]) -> str:
    found, file = cleaned["report"], cleaned["file"]
    read, kept = found["read"], found["kept"]
    words = said(language, "data.cleaned", read=f"{read:,}", kept=f"{kept:,}", dropped=f"{read - kept:,}")
    new = said(language, "data.cleaned_file", name=file["filename"])
    tables = "".join(counts_table(language, title, found[name], found["samples"]) for title, name in TABLES)
    go = button(language, "data.cleaned_open", "open", kind="live-small", file=file["id"])
    return (
        f'<div class="data-cleaned" role="status"><p class="data-good">✓ {words}</p><p>{new}</p>'
        f'<div class="live-row">{go}</div>{tables}</div>'
    )
