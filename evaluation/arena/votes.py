"""Votes as columns of codes, ready for counting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

VERDICTS = ("left", "right", "tie", "both_bad")
"""The verdict of each code of `Votes.outcome`."""
LEFT, RIGHT, TIE, BOTH_BAD = range(4)
STYLE = ("length", "headers", "lists", "bold")
"""What `Votes.style_left` and `style_right` count, in their order: tokens, Markdown headings, list items, bold runs."""

Codes = NDArray[np.integer[Any]]
Numbers = NDArray[np.float64]


class VotesError(ValueError):
    """The columns aren't valid votes: lengths differ, a code is out of range, or a model is compared with itself."""


class Vote(NamedTuple):
    """One vote as a record, for small numbers; columns are for large ones."""

    left: str
    """The model whose answer is on the left."""
    right: str
    verdict: str
    """One of `VERDICTS`."""
    rater: str
    prompt: str
    """Anything that is equal for equal prompts, such as a hash: votes on one prompt are not independent."""
    item: str | None = None
    """Anything that is equal for the same two answers shown to several raters; None if only one rater sees them."""
    style_left: Sequence[float] | None = None
    """Counts of the left answer in the order of `STYLE`."""
    style_right: Sequence[float] | None = None


@dataclass(frozen=True)
class Votes:
    """`n` votes; every array has `n` rows."""

    models: tuple[str, ...]
    """Names of the models, by code."""
    left: Codes
    """Code of the model whose answer is on the left."""
    right: Codes
    outcome: Codes
    """Index into `VERDICTS`."""
    rater: Codes
    """One number for each rater."""
    prompt: Codes
    """One number for each prompt."""
    item: Codes | None = None
    """One number for each pair of answers that several raters may see, -1 where only one does; for agreement only."""
    style_left: Numbers | None = None
    """(n, 4) counts of the left answer in the order of `STYLE`; for style control only."""
    style_right: Numbers | None = None

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.left)

    @classmethod
    def from_columns(
        cls,
        *,
        left: Sequence[str],
        right: Sequence[str],
        verdict: Sequence[str],
        rater: Sequence[str],
        prompt: Sequence[str],
        item: Sequence[str | None] | None = None,
        style_left: Any = None,
        style_right: Any = None,
    ) -> Self:
        """Make votes from columns of strings, as from a table query; style as (n, 4) numbers.

        Raises:
            VotesError: an unknown verdict, or columns that don't match.
        """
        unknown = set(verdict) - set(VERDICTS)
        if unknown:
            raise VotesError(f"{sorted(unknown)} isn't a verdict. Use one of {', '.join(VERDICTS)}.")
        models = sorted({*left, *right})
        code = {model: index for index, model in enumerate(models)}
        return cls(
            models=tuple(models),
            left=codes(left, code),
            right=codes(right, code),
            outcome=codes(verdict, {verdict: index for index, verdict in enumerate(VERDICTS)}),
            rater=codes(rater),
            prompt=codes(prompt),
            item=None if item is None else codes(item, {None: -1}),
            style_left=_style(style_left),
            style_right=_style(style_right),
        )

    @classmethod
    def of(cls, votes: Iterable[Vote]) -> Self:
        """Make votes from one record for each.

        Raises:
            VotesError: see `from_columns`.
        """
        rows = list(votes)
        columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in Vote._fields}
        styles = {name: columns.pop(name) for name in ("style_left", "style_right")}
        has_style = bool(rows) and all(value is not None for column in styles.values() for value in column)
        return cls.from_columns(**columns, **(styles if has_style else {}))

    def select(self, rows: NDArray[np.bool_] | Codes) -> Self:
        """Return these votes only; models keep their codes."""
        kept = {
            field.name: column[rows]
            for field in fields(self)
            if field.name != "models" and (column := getattr(self, field.name)) is not None
        }
        return replace(self, **kept)


def codes(column: Sequence[Any], known: Mapping[Any, int] | None = None) -> NDArray[np.int64]:
    """Return the column as numbers; strings not in `known` get the next free numbers in order of appearance."""
    code = dict(known or {})
    free = max(code.values(), default=-1) + 1
    for word in dict.fromkeys(column):
        if word not in code:
            code[word] = free
            free += 1
    return np.fromiter(map(code.__getitem__, column), dtype=np.int64, count=len(column))


def compact(code: Codes) -> tuple[Codes, Codes]:
    """Return the numbers that occur, ascending, and the index of each of `code` among them."""
    end = int(code.max(initial=0)) + 1
    if end > 4 * len(code) + 1000 or code.min(initial=0) < 0:
        kept, place = np.unique(code, return_inverse=True)
        return kept, place
    kept = np.flatnonzero(np.bincount(code, minlength=end))
    number = np.zeros(end, np.int64)
    number[kept] = np.arange(len(kept))
    return kept, number[code]


def _style(column: Any) -> Numbers | None:
    return None if column is None else np.asarray(column, dtype=np.float64).reshape(-1, len(STYLE))


def _check(votes: Votes) -> None:
    """Raise VotesError for invalid columns."""
    for field in fields(votes):
        column = getattr(votes, field.name)
        if field.name != "models" and column is not None and len(column) != len(votes.left):
            raise VotesError(
                f"{field.name} has {len(column)} rows, but left has {len(votes.left)}. Use columns of equal length."
            )
    for name, column, end in (
        ("left", votes.left, len(votes.models)),
        ("right", votes.right, len(votes.models)),
        ("outcome", votes.outcome, len(VERDICTS)),
    ):
        if len(column) and not (column.min() >= 0 and column.max() < end):
            raise VotesError(
                f"{name} has codes from {column.min()} to {column.max()}, but they must be 0 to {end - 1}."
            )
    if (votes.left == votes.right).any():
        raise VotesError("A model is compared with itself. Leave out such ratings: they don't show its strength.")
