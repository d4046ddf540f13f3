"""Selects the ratings that count, and why the others are discarded. Reads columns: there may be 100,000 ratings.

unfinished, error   an answer is truncated or failed: see `ratings/facts.py`, also for the next
identity_leak       an answer reveals its model
same_model          both answers are from the same model
not_blind           the rater had seen the names
duplicate           the rater has rated the same two answers before, among the selected ratings
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from sqlalchemy import String, cast
from sqlalchemy.orm import Session

from server.arena.ratings.reading import RatingFilter, is_duplicate, read_columns
from server.storage.tables import RatingRow

COLUMNS = (
    RatingRow.left_model,
    RatingRow.right_model,
    RatingRow.verdict,
    RatingRow.rater,
    RatingRow.prompt_sha,
    RatingRow.pair_sha,
    RatingRow.fault,
    RatingRow.blind,
    RatingRow.names_seen,
    RatingRow.unsafe,
    cast(RatingRow.dimensions, String),
)
"""JSON is read as text: most ratings have none, and parsing it row by row would take most of the time."""
STYLE = cast(RatingRow.style, String)


@dataclass(frozen=True)
class CountedRatings:
    """Columns of the ratings that count, and the number of discarded ones by reason."""

    left: list[str]
    right: list[str]
    verdict: list[str]
    rater: list[str]
    prompt: list[str]
    pair: list[str]
    """Equal for the same two answers."""
    unsafe: list[str | None]
    dimensions: list[dict[str, Any]]
    style: list[Any] | None
    discarded: Counter[str]


def read_counted_ratings(session: Session, rating_filter: RatingFilter, *, with_style: bool) -> CountedRatings:
    """Return the ratings that match the filter. Failing `blind_only` is one of the reasons to discard a rating."""
    selected = (*COLUMNS, is_duplicate(rating_filter), *((STYLE,) if with_style else ()))
    columns = read_columns(session, replace(rating_filter, blind_only=False), *selected)
    left, right, verdict, rater, prompt, pair, fault, blind, names_seen, unsafe, dimensions, repeats, *style = columns
    seen = [rating_filter.blind_only and (shown or not hidden) for shown, hidden in zip(names_seen, blind, strict=True)]
    reasons = list(map(_find_discard_reason, fault, left, right, seen, repeats))
    kept = [row for row, reason in enumerate(reasons) if reason is None]
    discarded = Counter(reason for reason in reasons if reason is not None)

    def select(column: Sequence[Any]) -> list[Any]:
        return [column[row] for row in kept]

    scores = [{} if text == "{}" else orjson.loads(text) for text in select(dimensions)]
    styles = [orjson.loads(text) for text in select(style[0])] if style else None
    return CountedRatings(
        select(left),
        select(right),
        select(verdict),
        select(rater),
        select(prompt),
        select(pair),
        select(unsafe),
        scores,
        styles,
        discarded,
    )


def _find_discard_reason(fault: str | None, left: str, right: str, seen: bool, repeats: bool) -> str | None:
    if fault or left == right:
        return fault or "same_model"
    if seen:
        return "not_blind"
    return "duplicate" if repeats else None
