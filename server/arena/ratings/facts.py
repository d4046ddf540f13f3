"""The columns of a rating that follow from its comparison: prompt, pair of answers, style, and faults of the answers.

They are computed once, when the comparison is rated, so that the statistics needn't read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from evaluation.arena import style_counts
from server.arena.ratings.identity_leaks import has_identity_leak

Fault = Literal["error", "unfinished", "identity_leak"]
Side = Mapping[str, Any]
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class ComparisonFacts:
    """The columns of a rating that follow from its comparison."""

    left_model: str
    right_model: str
    prompt_sha: str
    """Equal for equal conversations."""
    pair_sha: str
    """Equal for the same two answers of the same two models to the same conversation, in either order."""
    fault: Fault | None
    """Why ratings of it don't count; None if they do."""
    style: list[list[int]]
    """Of left, then of right: tokens, headings, list items, bold runs, as in `evaluation.arena.STYLE`."""

    def to_columns(self) -> dict[str, Any]:
        """Return the values by column name."""
        return asdict(self)


def compute_facts(
    messages: Sequence[Any], left: Side, right: Side, histories: Sequence[Any] | None = None
) -> ComparisonFacts:
    """messages: the prompt of both answers. histories: instead of it, each side's own conversation, if they
    diverged."""
    prompt = histories or messages
    keys = [[side["model"], side["content"]] for side in (left, right)]
    if histories:
        keys = [[*key, history] for key, history in zip(keys, histories, strict=False)]
    texts = [json.dumps(key, sort_keys=True) for key in keys]
    prompt_sha = _hash(json.dumps(prompt, sort_keys=True))
    return ComparisonFacts(
        left["model"],
        right["model"],
        prompt_sha,
        _hash(prompt_sha, *sorted(texts)),
        _find_fault(prompt, left, right),
        [[_count_tokens(side), *style_counts(side["content"])] for side in (left, right)],
    )


def _find_fault(prompt: Sequence[Any], left: Side, right: Side) -> Fault | None:
    sides = (left, right)
    if any(side.get("error") or side["finish_reason"] is None for side in sides):
        return "error"
    if any(side["finish_reason"] != "stop" for side in sides):
        return "unfinished"
    prompt_text = " ".join(_collect_texts(prompt))
    models = [side["model"] for side in sides]
    return "identity_leak" if any(has_identity_leak(side["content"], prompt_text, models) for side in sides) else None


def _count_tokens(side: Side) -> int:
    """Return the tokens of the answer; an estimate if the engine sent no count."""
    count: int | None = side.get("completion_tokens")
    return -(-len(side["content"]) // CHARACTERS_PER_TOKEN) if count is None else count


def _collect_texts(value: Any) -> list[str]:
    """Return every text in a conversation, in any form of content."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
    return [text for part in parts for text in _collect_texts(part)]


def _hash(*texts: str) -> str:
    """Return 96 bits in hexadecimal digits: among a billion texts, a collision has a probability of 1 in 10^11."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
