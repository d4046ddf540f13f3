"""The data page's cleaning: the form, the settings that it means, and the report."""

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
"""(name, what stands in it, whether a hint stands below)"""
TABLES = (
    ("data.dropped", "dropped", "data.reason"),
    ("data.changed", "changed", "data.reason"),
    ("data.with_personal", "personal_data", "data.pii"),
)
"""(title, the report's name for it, what its reasons' words begin with)"""
POLICIES = ("flag", "mask", "drop", "ignore")


def cleaning(session: DataSession) -> str:
    """The form, and what came of it."""
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
    """The settings that the form's fields mean. What isn't a number goes as it is: the server says what is wrong."""
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
