"""Names in the code: functions are verbs, and one concept has one name, the field's. CONTRIBUTING.md has the rule."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_house import OURS, REPOSITORY

NOT_FUNCTIONS = {
    "again", "asked", "begun", "checked", "chosen", "counted", "drawn", "foreseen", "found", "given", "gone",
    "held", "kept", "known", "left", "live", "made", "marked", "merged", "named", "placed", "said", "shown",
    "taken", "timed", "told", "tuned", "waiting", "wanted", "written", "at_work", "take_in", "take_up", "let_go",
    "look_again", "look_ahead", "said_elsewhere", "waits_no_more",
}  # fmt: skip
"""Past participles and other words that don't say what a function does. A property may have such a name."""
NOT_CLASSES = {
    "Asked", "Counted", "Doubted", "Ground", "Held", "Loan", "Narrator", "Said", "Shelf", "Spread", "Told", "Turn",
    "Voter", "Wanted", "Wish", "Workshop",
}  # fmt: skip
"""For a context, a queue, a lease, a state, a histogram, a snapshot, a filter, a request."""


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def quaint_names(source: str) -> Iterator[str]:
    """The names of functions and classes in a module that its reader would have to learn."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.strip("_") in NOT_FUNCTIONS and not is_property(node):
                yield node.name
        elif isinstance(node, ast.ClassDef) and node.name.strip("_") in NOT_CLASSES:
            yield node.name


def breaches(package: Path) -> list[str]:
    return [
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in sorted(package.rglob("*.py"))
        for name in quaint_names(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("package", OURS)
def test_functions_are_verbs_and_classes_have_the_names_of_the_field(package: str) -> None:
    assert breaches(REPOSITORY / package) == []


@pytest.mark.parametrize(
    "source",
    [
        "def _told(): ...",
        "async def at_work(): ...",
        "class Box:\n    def shown(self): ...",
        "def outer():\n    def said(): ...",
        "class _Wanted: ...",
    ],
)
def test_a_breach_is_noticed(source: str) -> None:
    assert len(list(quaint_names(source))) == 1


def test_a_property_may_be_named_by_a_participle() -> None:
    assert list(quaint_names("class Box:\n    @property\n    def held(self): ...")) == []
