"""Style of answers: the counts, and how a pair's counts become covariates.

As Chatbot Arena's style control: (left − right) ÷ (left + right + 1) of each count, divided by its standard deviation.
The difference isn't centred: an equal pair has no style effect, whichever side wins more often.
"""

from __future__ import annotations

import re

import numpy as np

from evaluation.arena.votes import STYLE, Numbers, Votes, VotesError

FENCED = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^ {0,3}#{1,6}\s", re.MULTILINE)
LIST_ITEM = re.compile(r"^\s*(?:[-*+]|\d{1,9}[.)])\s+\S", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


def style_counts(answer: str) -> tuple[int, int, int]:
    """Count headings, list items and bold runs of an answer in Markdown, outside of code fences."""
    text = FENCED.sub("", answer)
    return tuple(len(pattern.findall(text)) for pattern in (HEADING, LIST_ITEM, BOLD))  # type: ignore[return-value]


def style_covariates(votes: Votes) -> tuple[Numbers, tuple[str, ...]]:
    """Return (n, s) covariates of the left answer against the right one, and the names of those that vary.

    Raises:
        VotesError: the votes have no style.
    """
    if votes.style_left is None or votes.style_right is None:
        raise VotesError(
            "Style control needs style_left and style_right: counts in the order " + ", ".join(STYLE) + "."
        )
    difference = (votes.style_left - votes.style_right) / (votes.style_left + votes.style_right + 1)
    deviation = difference.std(axis=0) if len(votes) else np.zeros(len(STYLE))
    differs = deviation > 0
    names = tuple(name for name, kept in zip(STYLE, differs, strict=True) if kept)
    return difference[:, differs] / deviation[differs], names
