"""Votes with fitted strengths: any contrast of models, with its uncertainty, in log-odds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from scipy.special import expit

from evaluation.arena.clusters import Clusters, Regression, Variances, estimate_variances, make_clusterings
from evaluation.arena.strengths import Counts, Fit, find_groups, fit_pairs, fit_styled, make_contrast_basis
from evaluation.arena.style import style_covariates
from evaluation.arena.votes import BOTH_BAD, LEFT, TIE, Codes, Numbers, Votes

BothBad = Literal["leave_out", "tie"]


@dataclass(frozen=True)
class Contrast:
    """`t` linear combinations of the strengths, in log-odds."""

    value: Numbers
    variance: Numbers
    freedom: Numbers
    """Degrees of freedom for Student's t."""
    if_independent: Numbers
    """The variance if the votes were independent."""


@dataclass(frozen=True)
class FittedVotes:
    """Strengths (and style effects) of a set of votes, with the input of the sandwich estimator."""

    group: Codes
    """(models,) as numbered by `strengths.find_groups`."""
    style: tuple[str, ...]
    """Names of the style effects that were fitted."""
    at_large: tuple[str, ...]
    """The populations that the variances generalise to: raters, prompts, both or neither."""
    basis: Numbers
    """(models, k): each model's strength in terms of the parameters."""
    fit: Fit
    regression: Regression
    clusters: list[Clusters]
    stand_in: tuple[Numbers, Numbers]
    """(m, k) design and (m,) variance of the prior's votes on pairs whose votes are all alike (one side always won, or
    all are ties): such a pair shows no variance of its own, and would otherwise give an interval of almost no width."""

    @classmethod
    def from_votes(cls, votes: Votes, *, prior: float, style_control: bool, both_bad: BothBad) -> Self | None:
        """Fit the votes; return None where no vote compares anything.

        Raises:
            VotesError: style control of votes without style.
        """
        used = votes if both_bad == "tie" else votes.select(votes.outcome != BOTH_BAD)
        if not len(used):
            return None
        pair, counts, won, turn = _count_pairs(used)
        group = find_groups(len(votes.models), counts.first, counts.second)
        basis = make_contrast_basis(group)
        pairs = basis[counts.first] - basis[counts.second]
        fit = fit_pairs(pairs, counts, prior)
        design, row = pairs, pair
        style: tuple[str, ...] = ()
        if style_control:
            covariates, style = style_covariates(used)
        if style:
            design = np.hstack([pairs[pair], turn[:, None] * covariates])
            basis, pairs = _append_zero_columns(basis, len(style)), _append_zero_columns(pairs, len(style))
            row = np.arange(len(used))
            fit = fit_styled(design, won, pairs, fit.pseudo_votes, len(style))
        chance, at = expit(design @ fit.parameters), expit(pairs @ fit.parameters)
        regression = Regression(design, row, chance * (1 - chance), won - chance[row], fit.covariance)
        squares = np.bincount(pair, weights=won**2, minlength=len(counts.votes))
        all_alike = squares * counts.votes == counts.score**2
        noise = np.where(all_alike, fit.pseudo_votes * (at**2 + (1 - at) ** 2) / 2, 0.0)
        clusters, at_large = make_clusterings(used.rater, used.prompt)
        return cls(group, style, at_large, basis, fit, regression, clusters, (pairs, noise))

    def contrast(self, of_models: Numbers) -> Contrast:
        """Return contrasts of models, (t, models); each must sum to zero within every group."""
        return self._contrast(of_models @ self.basis)

    def style_effects(self) -> Contrast:
        """Return the effects of `style`."""
        return self._contrast(np.eye(self.basis.shape[1])[-len(self.style) :])

    def _contrast(self, targets: Numbers) -> Contrast:
        seen: Variances = estimate_variances(self.regression, self.clusters, targets)
        covariance = self.fit.covariance
        pairs, noise = self.stand_in
        unseen = (targets @ covariance @ pairs.T) ** 2 @ noise
        variance = seen.variance + unseen
        share = np.divide(seen.variance, variance, out=np.ones_like(variance), where=variance > 0)
        freedom = seen.freedom / np.maximum(share**2, 1e-9)
        independent = np.einsum("tk,kl,tl->t", targets, covariance, targets)
        return Contrast(targets @ self.fit.parameters, variance, freedom, independent)


def _count_pairs(votes: Votes) -> tuple[Codes, Counts, Numbers, Numbers]:
    """Return each vote's pair (an index into the counts), the counts, the first model's score (1, ½ or 0), and +1 where
    the pair's first model is on the left, −1 where it is on the right."""
    models = len(votes.models)
    first, second = np.minimum(votes.left, votes.right), np.maximum(votes.left, votes.right)
    cell = first.astype(np.int64) * models + second
    met = np.flatnonzero(np.bincount(cell, minlength=models * models))
    number = np.zeros(models * models, np.int64)
    number[met] = np.arange(len(met))
    pair = number[cell]
    tied = (votes.outcome == TIE) | (votes.outcome == BOTH_BAD)
    winner_left = votes.outcome == LEFT
    turn = np.where(votes.left == first, 1.0, -1.0)
    won = np.where(tied, 0.5, np.where(winner_left == (turn > 0), 1.0, 0.0))
    played = np.bincount(pair, minlength=len(met)).astype(np.float64)
    score = np.bincount(pair, weights=won, minlength=len(met)).astype(np.float64)
    return pair, Counts(first=met // models, second=met % models, votes=played, score=score), won, turn


def _append_zero_columns(columns: Numbers, style: int) -> Numbers:
    return np.hstack([columns, np.zeros((len(columns), style))])
