"""Agreement between raters, corrected for chance: Krippendorff's α (Krippendorff 2011, "Computing Krippendorff's
Alpha-Reliability"), for any number of raters and with missing values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from evaluation.arena.results import Agreement
from evaluation.arena.votes import LEFT, RIGHT, Codes, Numbers, Votes, codes, compact

Metric = Literal["nominal", "ordinal", "interval"]
RESAMPLES = (200, 2000)
"""Minimum and maximum of bootstrap samples; fewer for many items, whose interval is short anyway."""
RESAMPLED = 20_000_000
"""Items drawn in total: a second of work."""


def agreement(
    item: Sequence[Any] | Codes,
    value: Sequence[float] | Codes,
    *,
    metric: Metric = "nominal",
    confidence: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Compute α of the raters' values on the items, with a percentile interval from resampling items.

    One row for each rater of each item; who it was doesn't matter to α. `nominal` for verdicts, `ordinal` for scores
    such as 1–5.
    """
    levels, level = np.unique(np.asarray(value), return_inverse=True)
    table = _count_table(compact(item)[1] if isinstance(item, np.ndarray) else codes(item), level, len(levels))
    table = table[table.sum(axis=1) >= 2]
    if len(table) < 2:
        return Agreement(None, None, None, len(table))
    pairs = _pairs(table)
    alpha = _compute_alphas(pairs.sum(axis=0)[None], table.sum(axis=0)[None], levels, metric)[0]
    if np.isnan(alpha):
        return Agreement(None, None, None, len(table))
    low, high = np.quantile(
        _bootstrap_alphas(pairs, table, levels, metric, seed), (0.5 - confidence / 2, 0.5 + confidence / 2)
    )
    return Agreement(float(alpha), float(low), float(high), len(table))


def verdict_agreement(votes: Votes, confidence: float) -> Agreement:
    """Compute α of the verdicts on the same two answers, whichever of them each rater saw on the left."""
    if votes.item is None:
        return Agreement(None, None, None, 0)
    winner = np.select([votes.outcome == LEFT, votes.outcome == RIGHT], [votes.left, votes.right], -1 - votes.outcome)
    shared = votes.item >= 0
    return agreement(votes.item[shared], winner[shared], confidence=confidence)


def _count_table(item: Codes, level: Codes, levels: int) -> Numbers:
    """Return (items, levels): how many raters chose each level."""
    items = int(item.max(initial=-1)) + 1
    cells = np.bincount(item.astype(np.int64) * levels + level, minlength=items * levels)
    return cells.reshape(items, levels).astype(np.float64)


def _pairs(table: Numbers) -> Numbers:
    """Return (items, levels, levels): the coincidences of each item, each rater's value counted once."""
    raters = table.sum(axis=1)
    pairs = table[:, :, None] * table[:, None, :]
    level = np.arange(table.shape[1])
    pairs[:, level, level] -= table
    return np.asarray(pairs / (raters - 1)[:, None, None])


def _compute_alphas(pairs: Numbers, margins: Numbers, levels: Numbers, metric: Metric) -> Numbers:
    """Return (b,) α of b samples from their (b, levels, levels) coincidences, (b, levels) margins; NaN if undefined."""
    distance = _squared_distance(margins, levels, metric)
    total = margins.sum(axis=1)
    chance = margins[:, :, None] * margins[:, None, :]
    observed = (pairs * distance).sum(axis=(1, 2))
    expected = (chance * distance).sum(axis=(1, 2)) / (total - 1)
    ratio = np.divide(observed, expected, out=np.full(len(total), np.nan), where=expected > 0)
    return np.asarray(1 - ratio)


def _squared_distance(margins: Numbers, levels: Numbers, metric: Metric) -> Numbers:
    """Return (b, levels, levels) squared distances between two levels."""
    if metric == "nominal":
        return np.broadcast_to(1 - np.eye(len(levels)), (len(margins), len(levels), len(levels)))
    if metric == "interval":
        return np.broadcast_to((levels[:, None] - levels[None, :]) ** 2, (len(margins), len(levels), len(levels)))
    middle = margins.cumsum(axis=1) - margins / 2
    return np.asarray((middle[:, :, None] - middle[:, None, :]) ** 2)


def _bootstrap_alphas(pairs: Numbers, table: Numbers, levels: Numbers, metric: Metric, seed: int) -> Numbers:
    """Return α of bootstrap samples of the items; samples in which α is undefined are left out."""
    random, items = np.random.default_rng(seed), len(table)
    samples = int(np.clip(RESAMPLED // items, *RESAMPLES))
    flat, found = pairs.reshape(items, -1), []
    for start in range(0, samples, 50):
        drawn = random.integers(0, items, (min(50, samples - start), items))
        times = np.stack([np.bincount(row, minlength=items) for row in drawn]).astype(np.float64)
        drawn_pairs = (times @ flat).reshape(-1, len(levels), len(levels))
        found.append(_compute_alphas(drawn_pairs, times @ table, levels, metric))
    alphas = np.concatenate(found)
    return np.asarray(alphas[~np.isnan(alphas)])
