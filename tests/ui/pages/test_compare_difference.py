"""Which words are marked as differing."""

from __future__ import annotations

import pytest

from ui.pages.compare.difference import mark_differences


def list_marked(pieces: tuple[tuple[str, bool], ...]) -> list[str]:
    return [words for words, differs in pieces if differs]


@pytest.mark.parametrize(
    ("left", "right", "only_left", "only_right"),
    [
        ("The cat sat.", "The dog sat.", ["cat"], ["dog"]),
        ("one two three", "one three", ["two"], []),
        ("a red, round ball", "a blue; square ball", ["red, round"], ["blue; square"]),
        ("same words", "same words", [], []),
        ("words", "words!", [], []),
        ("巴黎是法国的首都", "伦敦是英国的首都", ["巴黎", "法"], ["伦敦", "英"]),
        ("It's fine", "It’s fine", ["It's"], ["It’s"]),
        ("", "all new here", [], ["all new here"]),
    ],
)
def test_differing_words_are_marked(left: str, right: str, only_left: list[str], only_right: list[str]) -> None:
    ours, theirs = mark_differences(left, right)
    assert (list_marked(ours), list_marked(theirs)) == (only_left, only_right)


@pytest.mark.parametrize(
    "words", ["a_b __ é\u0301 \x00\u200f שלום עולם", "👩‍👩‍👧 \n\n  two", "𠀀𠀁 mixed 漢字kana", ""]
)
def test_no_character_is_lost(words: str) -> None:
    assert "".join(piece for piece, _ in mark_differences(words, "other")[0]) == words
