"""Names in the code: functions are verbs, and one concept has one name, the field's. CONTRIBUTING.md has the rule.

And the sentences that users read outside the pages, such as errors and --help; `ui/test_i18n` has the pages' words.
"""

from __future__ import annotations

import ast
import re
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


NOT_SENTENCES = (
    "told", "tells", "whoever", "shall", "anew", "mend", "nobody", "perhaps", "for good", "all the same", "so many",
    "go(es)? on", "take[sn]? (in|back)", "look(s|ed)? (again|through)", "much alike", "foreseen", "br(eak|oke)s? off",
    "held up", "wants? an?", "by heart", "votes?", "voted", "judged?", "judgements?", "faults?", "drawn?", "draws",
    "h[oe]ld back", "stands? for", "labelled", "model engine", "is let", "hands? out", "at work",
)  # fmt: skip
"""Words and phrases that were tried and dropped: docs/style.md has the better ones."""
NOT_OURS_TO_SAY = re.compile(r"storage/migrations/|training/demo/(corpus|knowledge)\.py")
"""SQL, and what the embedded base model learns to say."""


def is_thing(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is used as what it returns: a property or a fixture."""
    return any(re.search("property|fixture", ast.unparse(decorator)) for decorator in node.decorator_list)


def quaint_names(source: str) -> Iterator[str]:
    """The names of functions and classes in a module that its reader would have to learn."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.strip("_") in NOT_FUNCTIONS and not is_thing(node):
                yield node.name
        elif isinstance(node, ast.ClassDef) and node.name.strip("_") in NOT_CLASSES:
            yield node.name


def breaches(package: Path) -> list[str]:
    return [
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in sorted(package.rglob("*.py"))
        for name in quaint_names(path.read_text(encoding="utf-8"))
    ]


def sentences(source: str) -> Iterator[str]:
    """The texts of three words and more in a module, without docstrings."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield from [node.value] if len(node.value.split()) >= 3 else []


def dropped_words(source: str) -> list[str]:
    dropped = re.compile(rf"\b(?:{'|'.join(NOT_SENTENCES)})\b", re.IGNORECASE)
    return [f"{found[0]!r} in {words!r}" for words in sentences(source) if (found := dropped.search(words))]


@pytest.mark.parametrize("package", [name for name in OURS if name != "ui"])
def test_no_sentence_has_a_word_that_was_dropped(package: str) -> None:
    modules = (path for path in (REPOSITORY / package).rglob("*.py") if not NOT_OURS_TO_SAY.search(str(path)))
    found = {str(path): words for path in modules if (words := dropped_words(path.read_text(encoding="utf-8")))}
    assert found == {}


def test_a_dropped_word_is_noticed() -> None:
    assert dropped_words("def f():\n    'It shall be told.'\n    raise ValueError(f'{x} wants an adapter')") == [
        "'wants an' in ' wants an adapter'"
    ]


@pytest.mark.parametrize("package", [*OURS, "benchmarks", "tests"])
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


def test_a_property_and_a_fixture_may_be_named_by_a_participle() -> None:
    assert list(quaint_names("class Box:\n    @property\n    def held(self): ...")) == []
    assert list(quaint_names("@pytest.fixture(scope='session')\ndef live(): ...")) == []
