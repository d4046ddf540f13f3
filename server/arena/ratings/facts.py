"""What a comparison is to the statistics of its votes: which prompt, which pair of answers, how styled, at fault how.

All of it follows from the comparison alone, so it is worked out once, when somebody votes. Knows no database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from evaluation.arena import style_counts
from server.arena.ratings.identity_leaks import leaks

Fault = Literal["error", "unfinished", "identity_leak"]
Side = Mapping[str, Any]
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Facts:
    """The columns of a vote that its comparison decides."""

    left_model: str
    right_model: str
    prompt_sha: str
    """Equal for equal conversations."""
    pair_sha: str
    """Equal for the same two answers of the same two models to the same conversation, whichever stood left."""
    fault: Fault | None
    """Why no vote on it counts; None where one does."""
    style: list[list[int]]
    """Of left, then of right: tokens, headings, list items, bold runs, as `evaluation.arena.STYLE` has them."""

    def columns(self) -> dict[str, Any]:
        """By the names in the table."""
        return asdict(self)


def facts_of(messages: Sequence[Any], left: Side, right: Side, histories: Sequence[Any] | None = None) -> Facts:
    """messages: what both answered; histories: instead, the conversation of each, where they went apart."""
    prompt = histories or messages
    keys = [[side["model"], side["content"]] for side in (left, right)]
    if histories:
        keys = [[*key, history] for key, history in zip(keys, histories, strict=False)]
    texts = [json.dumps(key, sort_keys=True) for key in keys]
    prompt_sha = _sha(json.dumps(prompt, sort_keys=True))
    return Facts(
        left["model"],
        right["model"],
        prompt_sha,
        _sha(prompt_sha, *sorted(texts)),
        _fault(prompt, left, right),
        [[_tokens(side), *style_counts(side["content"])] for side in (left, right)],
    )


def _fault(prompt: Sequence[Any], left: Side, right: Side) -> Fault | None:
    sides = (left, right)
    if any(side.get("error") or side["finish_reason"] is None for side in sides):
        return "error"
    if any(side["finish_reason"] != "stop" for side in sides):
        return "unfinished"
    asked = " ".join(_texts(prompt))
    models = [side["model"] for side in sides]
    return "identity_leak" if any(leaks(side["content"], asked, models) for side in sides) else None


def _tokens(side: Side) -> int:
    """Of the answer; for one whose engine told no count about what it comes to."""
    told: int | None = side.get("completion_tokens")
    return -(-len(side["content"]) // CHARACTERS_PER_TOKEN) if told is None else told


def _texts(value: Any) -> list[str]:
    """Every text in a conversation, however its content is made up."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
    return [text for part in parts for text in _texts(part)]


def _sha(*texts: str) -> str:
    """96 bits in hexadecimal digits: two of a billion different texts meet with a chance of 1 in 10^11."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
