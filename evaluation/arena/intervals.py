"""Intervals of means and rates of clustered votes, and quantiles of Student's t."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from evaluation.arena.clusters import Regression, estimate_variances, make_clusterings
from evaluation.arena.results import Interval
from evaluation.arena.votes import Codes, Numbers, codes


@dataclass(frozen=True)
class MeanScore:
    """Mean of a dimension's scores."""

    mean: float
    lower: float | None
    """None where the scores have no variance (one vote, or all equal), which doesn't prove certainty."""
    upper: float | None
    votes: int


def student(freedom: Numbers | float, confidence: float) -> Numbers:
    """Return the two-sided quantile of Student's t."""
    result: Numbers = np.asarray(stdtrit(freedom, 0.5 + confidence / 2))
    return result


def normal(chance: float) -> float:
    """Return the quantile of the normal distribution."""
    return float(ndtri(chance))


def mean_scores(
    values: Sequence[float],
    rater: Sequence[Any],
    prompt: Sequence[Any],
    *,
    confidence: float = 0.95,
    scale: tuple[float, float] = (1, 5),
) -> MeanScore | None:
    """Return the mean with an interval clustered by rater and prompt, clipped to the scale; None without votes."""
    if not len(values):
        return None
    mean, error = _mean(np.asarray(values, dtype=np.float64), codes(rater), codes(prompt), confidence)
    if error == 0:
        return MeanScore(mean, None, None, len(values))
    return MeanScore(mean, max(mean - error, scale[0]), min(mean + error, scale[1]), len(values))


def estimate_rate(happened: Numbers, rater: Codes, prompt: Codes, confidence: float) -> Interval | None:
    """Return the share of ones with Wilson's interval (Wilson 1927) for the effective number of independent votes, at
    most the actual number; None without votes."""
    if not len(happened):
        return None
    share, error = _mean(happened, rater, prompt, confidence)
    quantile = normal(0.5 + confidence / 2)
    worth = min(share * (1 - share) * (quantile / error) ** 2, len(happened)) if error > 0 else len(happened)
    middle = (share + quantile**2 / (2 * worth)) / (1 + quantile**2 / worth)
    half = quantile / (1 + quantile**2 / worth) * np.sqrt(share * (1 - share) / worth + (quantile / (2 * worth)) ** 2)
    return Interval(share, float(max(middle - half, 0.0)), float(min(middle + half, 1.0)))


def _mean(values: Numbers, rater: Codes, prompt: Codes, confidence: float) -> tuple[float, float]:
    """Return the mean, and half the width of its interval (0 without variance)."""
    n, mean = len(values), float(values.mean())
    if n < 2 or np.ptp(values) == 0:
        return mean, 0.0
    line = Regression(np.ones((1, 1)), np.zeros(n, np.int64), np.ones(1), values - mean, np.full((1, 1), 1 / n))
    found = estimate_variances(line, make_clusterings(rater, prompt)[0], np.ones((1, 1)))
    return mean, float(student(found.freedom, confidence)[0] * np.sqrt(found.variance[0]))
