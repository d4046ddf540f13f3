"""Finds the words in which two answers differ.

A word is a run of letters or digits, or one character in Chinese, Japanese and Korean. White space and punctuation
are marked only between differing words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise

# Han, kana and hangul have no spaces between words.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+(?:['’][^\W{_CJK}]+)*|\s+|[^\w\s]|_+")
LONGEST_EXACT = 3000
"""Up to this many words, texts are compared exactly; above, very frequent words don't guide the search."""

Piece = tuple[str, bool]
"""A piece of text, and whether it differs from the other answer."""


@lru_cache(maxsize=64)
def mark_differences(left: str, right: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Return both texts in pieces; joined, the pieces give the original text."""
    ours, theirs = _TOKEN.findall(left), _TOKEN.findall(right)
    our_words, their_words = _words(ours), _words(theirs)
    long = max(len(our_words), len(their_words)) > LONGEST_EXACT
    matcher = SequenceMatcher(None, [ours[i] for i in our_words], [theirs[i] for i in their_words], autojunk=long)
    our_common, their_common = set[int](), set[int]()
    for block in matcher.get_matching_blocks():
        our_common.update(our_words[block.a : block.a + block.size])
        their_common.update(their_words[block.b : block.b + block.size])
    return _pieces(ours, our_words, our_common), _pieces(theirs, their_words, their_common)


def _words(tokens: Sequence[str]) -> list[int]:
    return [place for place, token in enumerate(tokens) if token[0].isalnum()]


def _pieces(tokens: Sequence[str], words: Sequence[int], common: set[int]) -> tuple[Piece, ...]:
    marked = {place for place in words if place not in common}
    # Text between two differing words is marked, too, so that a phrase is one mark.
    for before, after in pairwise(words):
        if before in marked and after in marked:
            marked.update(range(before, after))
    pieces: list[Piece] = []
    for place, token in enumerate(tokens):
        differs = place in marked
        if pieces and pieces[-1][1] == differs:
            pieces[-1] = (pieces[-1][0] + token, differs)
        else:
            pieces.append((token, differs))
    return tuple(pieces)
