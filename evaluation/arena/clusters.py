"""Covariance of estimates from votes that are not independent: votes of one rater, or on one prompt, are correlated.

Two-way clustered sandwich (Cameron, Gelbach & Miller 2011): by rater + by prompt − by both. Each of the three has the
bias-reduced correction CR2 and Satterthwaite's degrees of freedom (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018),
without which ten raters give intervals that are far too short. Works on designs and residuals of any regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.arena.votes import Codes, Numbers, compact

FEWEST_CLUSTERS = 3.0
"""Fewer raters (or prompts) than this, counted as 1 ÷ Σ share², can't represent raters at large: their variance can't
be estimated. The interval then holds for these raters only."""
NO_LEVERAGE = 1e-3
"""A cluster that has less of the information than this for each parameter needs no correction: it would change a tenth
of a percent. At most a thousand clusters have more."""
ROOM = 4_000_000
"""Numbers in memory at once: the targets are processed in parts."""


@dataclass(frozen=True)
class Clusters:
    """One partition of `n` rows into clusters."""

    code: Codes
    """(n,) consecutive numbers from 0."""
    sign: int
    """+1 or −1: how its sandwich enters the sum."""


@dataclass(frozen=True)
class Regression:
    """`n` rows of a fitted model: the input of a sandwich estimator."""

    design: Numbers
    """(u, k): the distinct rows of the design."""
    row: Codes
    """(n,): the row of each observation."""
    weight: Numbers
    """(u,): information of one observation."""
    residual: Numbers
    """(n,)"""
    covariance: Numbers
    """(k, k): inverse of the information."""


@dataclass(frozen=True)
class Variances:
    """Variances of `t` targets."""

    variance: Numbers
    """(t,)"""
    freedom: Numbers
    """(t,) degrees of freedom, for Student's t."""


def make_clusterings(rater: Codes, prompt: Codes) -> tuple[list[Clusters], tuple[str, ...]]:
    """Return the partitions to sum over, and the populations that the result generalises to, of raters and prompts."""
    wide = [
        name for name, code in (("raters", rater), ("prompts", prompt)) if _effective_clusters(code) >= FEWEST_CLUSTERS
    ]
    codes = {"raters": rater, "prompts": prompt}
    if not wide:
        return [_clusters(np.arange(len(rater)), 1)], ()
    if len(wide) == 1:
        return [_clusters(codes[wide[0]], 1)], tuple(wide)
    both = rater.astype(np.int64) * (int(prompt.max()) + 1) + prompt
    return [_clusters(rater, 1), _clusters(prompt, 1), _clusters(both, -1)], tuple(wide)


def estimate_variances(regression: Regression, clusterings: Sequence[Clusters], targets: Numbers) -> Variances:
    """Return the variances of `targets` @ parameters, (t, k).

    If the sum of the three sandwiches is negative (it may be, by chance), the largest of the added ones is used.
    """
    root = np.linalg.cholesky(regression.covariance)
    scaled = Regression(
        regression.design @ root, regression.row, regression.weight, regression.residual, regression.covariance
    )
    aims = targets @ root
    parts = [_estimate_one_way(scaled, clusters, aims) for clusters in clusterings]
    variance = np.sum(
        [clusters.sign * part.variance for clusters, part in zip(clusterings, parts, strict=True)], axis=0
    )
    added = [part for clusters, part in zip(clusterings, parts, strict=True) if clusters.sign > 0]
    largest = np.max([part.variance for part in added], axis=0)
    return Variances(np.where(variance > 0, variance, largest), np.min([part.freedom for part in added], axis=0))


def _estimate_one_way(regression: Regression, clusters: Clusters, aims: Numbers) -> Variances:
    """Return CR2 and its degrees of freedom, in coordinates where the covariance is the identity matrix."""
    design, size = regression.design, regression.design.shape[1]
    cells = _sum_cells(regression, clusters)
    rows = design[cells.row]
    score = np.add.reduceat(cells.residual[:, None] * rows, cells.start)
    held = cells.weight * np.einsum("uk,uk->u", rows, rows)
    share_of = np.add.reduceat(held, cells.start)
    heavy = np.flatnonzero(share_of > NO_LEVERAGE * size)
    most = float(share_of[share_of <= NO_LEVERAGE * size].max(initial=0))
    information = _cluster_information(rows, cells, heavy)
    share, axes = np.linalg.eigh(information)
    left = 1 - share
    factor = np.where(left > 1e-8, np.maximum(left, 1e-8) ** -0.5, 0.0)
    adjust = np.einsum("gij,gj,gkj->gik", axes, factor, axes)
    score[heavy] = np.einsum("gij,gj->gi", adjust, score[heavy])
    variance = np.einsum("ti,ij,tj->t", aims, score.T @ score, aims)
    light = rows.T @ (rows * cells.weight[:, None]) - information.sum(axis=0)
    parts = np.array_split(aims, max(aims.shape[0] * len(heavy) * size // ROOM, 1))
    return Variances(
        variance, np.concatenate([_degrees_of_freedom(information, adjust, (light, most), part) for part in parts])
    )


@dataclass(frozen=True)
class _Cells:
    """Observations of one cluster with the same row of the design, summed; ordered by cluster."""

    row: Codes
    residual: Numbers
    weight: Numbers
    start: Codes
    """Where each cluster starts."""


def _sum_cells(regression: Regression, clusters: Clusters) -> _Cells:
    rows = len(regression.design)
    kept, number = compact(clusters.code.astype(np.int64) * rows + regression.row)
    row = kept % rows
    return _Cells(
        row=row,
        residual=np.bincount(number, weights=regression.residual).astype(np.float64),
        weight=np.bincount(number) * regression.weight[row],
        start=np.flatnonzero(np.diff(kept // rows, prepend=-1)),
    )


def _cluster_information(rows: Numbers, cells: _Cells, heavy: Codes) -> Numbers:
    """Return (h, k, k): each heavy cluster's share of the information; `rows` are the cells' rows of the design."""
    size = rows.shape[1]
    if not len(heavy):
        return np.zeros((0, size, size))
    length = np.diff(cells.start, append=len(cells.row))
    chosen = np.zeros(len(length), bool)
    chosen[heavy] = True
    within = np.repeat(chosen, length)
    start = np.concatenate([[0], np.cumsum(length[heavy])[:-1]])
    held = rows[within]
    weighted = held * cells.weight[within, None]
    columns = [np.add.reduceat(weighted * held[:, [column]], start) for column in range(size)]
    return np.stack(columns, axis=1)


def _degrees_of_freedom(information: Numbers, adjust: Numbers, light: tuple[Numbers, float], aims: Numbers) -> Numbers:
    """Return Satterthwaite's degrees of freedom of each target's variance, treating votes as independent; the light
    clusters, which have `light[0]` (k, k) together, all count as heavy as the heaviest of them, `light[1]`."""
    aimed = np.einsum("gij,tj->tgi", adjust, aims)
    seen = np.einsum("gij,tgj->tgi", information, aimed)
    own = np.einsum("tgi,tgi->tg", aimed, seen)
    lost = np.einsum("tgi,tgi->tg", seen, seen)
    across = np.einsum("tgi,tgj->tij", seen, seen)
    rest = np.einsum("ti,ij,tj->t", aims, light[0], aims).clip(min=0)
    most = light[1] * np.einsum("ti,ti->t", aims, aims)
    trace = (own - lost).sum(axis=1) + rest
    squares = (own**2 - 2 * own * lost).sum(axis=1) + (across**2).sum(axis=(1, 2)) + most * rest
    freedom = np.divide(trace**2, squares, out=np.ones_like(trace), where=squares > 0)
    return np.asarray(np.maximum(freedom, 1.0))


def _clusters(code: Codes, sign: int) -> Clusters:
    return Clusters(compact(code)[1], sign)


def _effective_clusters(code: Codes) -> float:
    """Return 1 ÷ Σ share²: the number of equal clusters that would be as uneven."""
    counts = np.bincount(compact(code)[1]).astype(np.float64)
    return float(counts.sum()) ** 2 / float((counts**2).sum()) if len(code) else 0.0
