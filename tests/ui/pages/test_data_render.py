"""The data page's drawing of what a base's chat template doesn't render."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest

from ui.pages.data.render import examples
from ui.pages.data.report import report
from ui.pages.data.state import DataSession
from ui.words.i18n import Language

LENGTHS = {"unit": "tokens", "shortest": 1, "median": 1, "p95": 1, "longest": 1, "total": 12, "histogram": [[1, 12]]}
TOKENS = {"learned_share": 0.5, "max_length": 9, "too_long": 0, "rows": 12, "not_rendered": {"tools": 12, "names": 3}}
REPORT: dict[str, Any] = {
    "examples": 12,
    "method": "supervised",
    "kinds": {"chat": 12},
    "answers_per_example": {"1": 12},
    "with_tools": 12,
    "lengths": LENGTHS,
    "tokens": TOKENS,
    "duplicates": [],
    "duplicates_found": 0,
    "near_duplicates": 0,
    "personal_data": {},
    "faults": [],
    "faults_found": 0,
}


@pytest.mark.parametrize(
    ("language", "words", "each"),
    [
        ("en", "Not rendered by the model's chat template", "tools in 12, names in 3"),
        ("zh", "模型的聊天模板未渲染", "工具：12 条, 名称：3 条"),
    ],
)
def test_what_is_not_rendered_is_counted_in_the_report_and_named_at_each_example(
    language: Language, words: str, each: str
) -> None:
    drawn = unescape(str(report(language, REPORT)))
    assert words in drawn
    assert each in drawn
    session = DataSession(language=language)
    session.files, session.file_id = [{"id": "file-1"}], "file-1"
    one = {"line": 1, "kind": "chat", "rows": [], "error": None, "not_rendered": ["names"]}
    session.page = {"data": [one, one | {"not_rendered": []}], "has_more": False}
    assert unescape(str(examples(session))).count(words) == 1
