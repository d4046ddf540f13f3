"""HTML stands in templates: no module of the pages has any in a string."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

UI = Path(__file__).parents[2] / "ui"
TAG = re.compile(r"</?[a-zA-Z]")
WITH_HTML = {
    "html/templates.py",  # the filter that makes code of what stands between backticks
    "pages/data/page.py",  # a sign for the page's script
    "pages/train/page.py",
}
"""Modules that may; what has none any more goes out of here, but for the filter."""


def strings_with_tags(source: str) -> list[str]:
    """The strings, and the parts of f-strings, in which a tag begins; docstrings are none of them."""
    tree = ast.parse(source)
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docs
        and TAG.search(node.value)
    ]


def test_html_stands_in_templates() -> None:
    wrong = {
        str(path.relative_to(UI)): found
        for path in sorted(UI.rglob("*.py"))
        if (found := strings_with_tags(path.read_text(encoding="utf-8")))
    }
    assert {path: found for path, found in wrong.items() if path not in WITH_HTML} == {}


@pytest.mark.parametrize("source", ['f"<b>{name}</b>"', 'x = "<br>"', 'f"{name}</p>"'])
def test_html_in_a_string_is_noticed(source: str) -> None:
    assert strings_with_tags(source) != []


def test_what_only_looks_like_html_is_none() -> None:
    assert strings_with_tags('"""A docstring with <b>."""\nx = "a < b, (a) => b, <- c"') == []
