"""Raters' scores of answers, 1 to 5 in each dimension, as columns for `evaluation.arena`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from evaluation.arena import Agreement, MeanScore, agreement, mean_scores
from server.arena.comparisons.store import SIDES
from server.arena.leaderboard.counted_votes import CountedRatings

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class _Dimension:
    """All scores in one dimension; arrays with one row per score."""

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
    def from_ratings(cls, ratings: CountedRatings) -> Self:
        """Read the scores of these ratings. Scores without a side are for the preferred answer, or for both if there is
        none."""
        models = tuple(dict.fromkeys([*ratings.left, *ratings.right]))
        codes = {
            side: _encode(column, models) for side, column in zip(SIDES, (ratings.left, ratings.right), strict=True)
        }
        rater, prompt, pair = (_encode(column) for column in (ratings.rater, ratings.prompt, ratings.pair))
        found: dict[str, tuple[list[int], list[int], list[int]]] = {}
        for row, given in enumerate(ratings.dimensions):
            for side, name, value in _iterate_scores(given, ratings.verdict[row]) if given else ():
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

    def compute_means(self, model: str, confidence: float) -> dict[str, MeanScore]:
        """Return dimension → mean of this model's scores, for the dimensions in which it has any."""
        code = self.models.index(model)
        means = {}
        for name, scores in self.dimensions.items():
            its = scores.model == code
            mean = mean_scores(scores.value[its], scores.rater[its], scores.prompt[its], confidence=confidence)
            if mean is not None:
                means[name] = mean
        return means

    def compute_agreement(self, confidence: float) -> dict[str, Agreement]:
        """Return dimension → agreement of the raters on the same answer."""
        return {
            name: agreement(scores.answer, scores.value, metric="ordinal", confidence=confidence)
            for name, scores in self.dimensions.items()
        }


def _iterate_scores(dimensions: dict[str, Any], verdict: str) -> Iterator[tuple[int, str, int]]:
    """Yield (index of the side, dimension, score)."""
    by_side = dimensions.keys() <= set(SIDES)
    for index, side in enumerate(SIDES):
        if by_side or verdict not in SIDES or side == verdict:
            for name, value in (dimensions.get(side, {}) if by_side else dimensions).items():
                yield index, name, value


def _encode(column: Sequence[str], known: Sequence[str] = ()) -> Codes:
    """Return an integer code for each word; those of `known` are numbered first, from 0."""
    code = {word: number for number, word in enumerate(dict.fromkeys([*known, *column]))}
    return np.array([code[word] for word in column], dtype=np.int64)
