"""Cleaning on the data page: the form, its settings, and the report."""

from __future__ import annotations

from functools import partial
from typing import Any

from ui.frame.live import Action
from ui.html.templates import render
from ui.pages.data.render import problem_box
from ui.pages.data.report import label
from ui.pages.data.state import DataSession
from ui.words.i18n import text

SWITCHES = ("exact_duplicates", "normalize_unicode", "normalize_whitespace")
FIELDS = (
    ("near_duplicates", "0.8", True),
    ("min_answer_words", "1", False),
    ("max_chars", "", True),
    ("languages", "", True),
)
"""(name, default, whether it has a hint)"""
TABLES = (
    ("data.dropped", "dropped", "data.reason"),
    ("data.changed", "changed", "data.reason"),
    ("data.with_personal", "personal_data", "data.pii"),
)
"""(title, key in the report, prefix of its reasons' text keys)"""
POLICIES = ("flag", "mask", "drop", "ignore")


def cleaning(session: DataSession) -> str:
    """Return the form and the result of the last cleaning."""
    if session.file is None:
        return ""
    language = session.language
    return render(
        "pages/data/templates/cleaning.html",
        language,
        session=session,
        fields=FIELDS,
        policies=[(policy, text(language, f"data.personal_data.{policy}")) for policy in POLICIES],
        switches=SWITCHES,
        problem=problem_box(language, session.cleaning_problem),
        tables=TABLES,
        label=partial(label, language),
    )


def settings_of(action: Action) -> dict[str, Any]:
    """Return the form's settings. Values that aren't numbers are sent as they are: the server reports them."""
    switched = action.checked_values("switches")
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
