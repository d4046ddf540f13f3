"""What raters scored answers with, 1 to 5 in each dimension, as columns for `evaluation.arena`. Makes no statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from evaluation.arena import Agreement, MeanScore, agreement, mean_scores
from server.arena.comparisons.store import SIDES
from server.arena.leaderboard.counted_votes import CountedVotes

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class _Dimension:
    """All scores in one dimension; arrays of one row a score."""

    value: Codes
    model: Codes
    rater: Codes
    prompt: Codes
    answer: Codes
    """Equal for the same answer."""


@dataclass(frozen=True)
class DimensionScores:
    """Scores by dimension."""

    models: tuple[str, ...]
    dimensions: dict[str, _Dimension]

    @classmethod
    def of(cls, votes: CountedVotes) -> Self:
        """Those in these votes. What names no side is about the preferred answer, or about both where none is."""
        models = tuple(dict.fromkeys([*votes.left, *votes.right]))
        codes = {side: _codes(column, models) for side, column in zip(SIDES, (votes.left, votes.right), strict=True)}
        rater, prompt, pair = (_codes(column) for column in (votes.rater, votes.prompt, votes.pair))
        found: dict[str, tuple[list[int], list[int], list[int]]] = {}
        for row, given in enumerate(votes.dimensions):
            for side, name, value in _given(given, votes.verdict[row]) if given else ():
                rows, values, sides = found.setdefault(name, ([], [], []))
                rows.append(row)
                values.append(value)
                sides.append(side)
        dimensions = {}
        for name, (rows, values, sides) in sorted(found.items()):
            model = np.where(np.array(sides) == 0, codes["left"][rows], codes["right"][rows])
            answer = pair[rows] * len(models) + model
            dimensions[name] = _Dimension(np.array(values), model, rater[rows], prompt[rows], answer)
        return cls(models, dimensions)

    def means(self, model: str, confidence: float) -> dict[str, MeanScore]:
        """Dimension -> the mean of this model's scores in it; without those it has no scores in."""
        code = self.models.index(model)
        means = {}
        for name, scores in self.dimensions.items():
            its = scores.model == code
            mean = mean_scores(scores.value[its], scores.rater[its], scores.prompt[its], confidence=confidence)
            if mean is not None:
                means[name] = mean
        return means

    def agreement(self, confidence: float) -> dict[str, Agreement]:
        """Dimension -> how far raters agree on the same answer."""
        return {
            name: agreement(scores.answer, scores.value, metric="ordinal", confidence=confidence)
            for name, scores in self.dimensions.items()
        }


def _given(dimensions: dict[str, Any], verdict: str) -> Iterator[tuple[int, str, int]]:
    """Index of the side, dimension, score."""
    by_side = dimensions.keys() <= set(SIDES)
    for index, side in enumerate(SIDES):
        if by_side or verdict not in SIDES or side == verdict:
            for name, value in (dimensions.get(side, {}) if by_side else dimensions).items():
                yield index, name, value


def _codes(column: Sequence[str], known: Sequence[str] = ()) -> Codes:
    """A number for each word; those of `known` count from 0 in its order."""
    code = {word: number for number, word in enumerate(dict.fromkeys([*known, *column]))}
    return np.array([code[word] for word in column], dtype=np.int64)
