"""Scores of one answer against what was expected. Knows nothing of where answers come from."""

from __future__ import annotations


def exact_match(answer: str, expected: str) -> bool:
    """Whether the two are the same text, white space at the ends aside."""
    return answer.strip() == expected.strip()
