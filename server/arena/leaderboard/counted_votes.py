"""Chooses the votes that count, and says of the others why they don't. Reads columns: there may be 100,000.

unfinished, error   an answer has no end of its own: see `ratings/facts.py`, as for the next
identity_leak       an answer says who gave it
same_model          the two answers are one model's
not_blind           the rater had seen the names
duplicate           the rater judges two answers again, among the votes that are asked for
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from sqlalchemy import String, cast
from sqlalchemy.orm import Session

from server.arena.ratings.reading import Wanted, is_duplicate, read_columns
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
"""JSON comes as text: most votes hold none, and parsing it row by row would take most of the time."""
STYLE = cast(RatingRow.style, String)


@dataclass(frozen=True)
class CountedVotes:
    """Columns of the votes that count, a row a vote, and how many don't, by reason."""

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


def read_votes(session: Session, wanted: Wanted, *, with_style: bool) -> CountedVotes:
    """The votes that are wanted. `blind_only` is a reason among others for not counting one."""
    asked = (*COLUMNS, is_duplicate(wanted), *((STYLE,) if with_style else ()))
    columns = read_columns(session, replace(wanted, blind_only=False), *asked)
    left, right, verdict, rater, prompt, pair, fault, blind, names_seen, unsafe, dimensions, repeats, *style = columns
    seen = [wanted.blind_only and (shown or not hidden) for shown, hidden in zip(names_seen, blind, strict=True)]
    reasons = list(map(_why_not, fault, left, right, seen, repeats))
    kept = [row for row, reason in enumerate(reasons) if reason is None]
    discarded = Counter(reason for reason in reasons if reason is not None)

    def of(column: Sequence[Any]) -> list[Any]:
        return [column[row] for row in kept]

    scores = [{} if text == "{}" else orjson.loads(text) for text in of(dimensions)]
    styles = [orjson.loads(text) for text in of(style[0])] if style else None
    return CountedVotes(
        of(left), of(right), of(verdict), of(rater), of(prompt), of(pair), of(unsafe), scores, styles, discarded
    )


def _why_not(fault: str | None, left: str, right: str, seen: bool, repeats: bool) -> str | None:
    if fault or left == right:
        return fault or "same_model"
    if seen:
        return "not_blind"
    return "duplicate" if repeats else None
