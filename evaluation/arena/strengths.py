"""Bradley–Terry strengths: the maximum of the votes' likelihood.

The probability that a is preferred to b is σ(β_a − β_b + style), a tie counts as half a win for each (Bradley & Terry
1952; Hunter 2004). Found by Newton's method on counts: a million votes on six models are fifteen rows.

Firth's penalty (Firth 1993; Heinze & Schemper 2002) keeps it finite where one side never lost: it adds h votes to every
pair that met, half of them won by each side, where h is the pair's leverage. All h together are one vote less than
there are models (in one group), whether 20 votes were cast or a million.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from evaluation.arena.votes import Codes, Numbers, VotesError

MOST_STEPS = 100
LONGEST_STEP = 2.0
"""Newton's step is limited to this many units of log-odds: far from the maximum it would overshoot."""
STYLE_RIDGE = 0.5
"""Penalty on style effects, ½·0.5·Σγ² of the log-likelihood's sum, as Chatbot Arena has it: weak beside 20 votes."""


@dataclass(frozen=True)
class Counts:
    """Votes between the pairs with direct votes; `m` pairs."""

    first: Codes
    second: Codes
    votes: Numbers
    score: Numbers
    """Wins of the first + half of the ties."""


@dataclass(frozen=True)
class Fit:
    """The maximum, in `k` free parameters."""

    parameters: Numbers
    """(k,)"""
    covariance: Numbers
    """(k, k): inverse of the information, the covariance if all votes were independent."""
    pseudo_votes: Numbers
    """(m,): votes that the prior adds to each pair, half of them won by each side."""


def find_groups(models: int, first: Codes, second: Codes) -> Codes:
    """Return for each model the number of its group: models connected by votes; 0 is the largest."""
    group = np.arange(models)
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        group[group == group[b]] = group[a]
    _, named, size = np.unique(group, return_inverse=True, return_counts=True)
    order = np.argsort(-size, kind="stable")
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    result: Codes = number[named]
    return result


def make_contrast_basis(group: Codes) -> Numbers:
    """Return a (models, k) orthonormal basis of the strengths whose mean is zero within each group."""
    columns = [np.zeros((len(group), 0))]
    for number in range(int(group.max(initial=-1)) + 1):
        members = np.flatnonzero(group == number)
        within = np.zeros((len(group), len(members) - 1))
        centring = np.eye(len(members)) - 1 / len(members)
        within[members] = np.linalg.svd(centring)[0][:, : len(members) - 1]
        columns.append(within)
    return np.hstack(columns)


def fit_pairs(design: Numbers, counts: Counts, prior: float) -> Fit:
    """Fit strengths to counts; `design` is (m, k), `prior` the strength of Firth's penalty (1 is Firth's own).

    Raises:
        VotesError: one side never lost and the prior is 0.
    """
    parameters = np.zeros(design.shape[1])
    for _ in range(MOST_STEPS):
        chance = expit(design @ parameters)
        weight = counts.votes * chance * (1 - chance)
        plain = _inverse(_information(design, weight))
        pseudo = prior * weight * np.einsum("mi,ij,mj->m", design, plain, design)
        score = design.T @ (counts.score - counts.votes * chance + pseudo * (0.5 - chance))
        covariance = _inverse(_information(design, weight + pseudo * chance * (1 - chance)))
        step = _limit_step(covariance @ score)
        parameters = parameters + step
        if np.abs(step).max(initial=0) < 1e-10:
            break
    return Fit(parameters, covariance, pseudo)


def fit_styled(design: Numbers, won: Numbers, pairs: Numbers, pseudo: Numbers, style: int) -> Fit:
    """Fit strengths and style effects to single votes: (n, k) `design` whose last `style` columns are penalised, (n,)
    `won` (1, ½ or 0); the prior's `pseudo` votes on `pairs` (m, k) come from the fit without style."""
    ridge = np.zeros(design.shape[1])
    ridge[-style:] = STYLE_RIDGE
    parameters = np.zeros(design.shape[1])
    for _ in range(MOST_STEPS):
        chance, prior_chance = expit(design @ parameters), expit(pairs @ parameters)
        score = design.T @ (won - chance) + pairs.T @ (pseudo * (0.5 - prior_chance)) - ridge * parameters
        information = _information(design, chance * (1 - chance))
        information += _information(pairs, pseudo * prior_chance * (1 - prior_chance)) + np.diag(ridge)
        covariance = _inverse(information)
        step = _limit_step(covariance @ score)
        parameters = parameters + step
        if np.abs(step).max(initial=0) < 1e-10:
            break
    return Fit(parameters, covariance, pseudo)


def _inverse(information: Numbers) -> Numbers:
    try:
        return np.asarray(np.linalg.inv(information), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        raise VotesError(
            "The fit has no finite maximum: one side never lost. Set a prior above 0; Firth's is 1."
        ) from error


def _information(design: Numbers, weight: Numbers) -> Numbers:
    result: Numbers = (design.T * weight) @ design
    return result


def _limit_step(step: Numbers) -> Numbers:
    longest = np.abs(step).max(initial=0)
    return step * (LONGEST_STEP / longest) if longest > LONGEST_STEP else step
