"""Scores of one answer against the expected one."""

from __future__ import annotations


def exact_match(answer: str, expected: str) -> bool:
    """Return whether the two are the same text, ignoring white space at the ends."""
    return answer.strip() == expected.strip()
