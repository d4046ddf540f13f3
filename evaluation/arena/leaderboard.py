"""From votes to a leaderboard: combines strengths, intervals, agreement and position bias.

docs/statistics.md says how each number is computed, and how it was validated.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import expit

from evaluation.arena.fitted import BothBad, Contrast, FittedVotes
from evaluation.arena.intervals import estimate_rate, normal, student
from evaluation.arena.krippendorff import verdict_agreement
from evaluation.arena.results import Interval, Leaderboard, ModelStanding, PairStanding, PositionBias
from evaluation.arena.votes import LEFT, RIGHT, TIE, Codes, Numbers, Votes, VotesError, compact

POINTS = 400 / math.log(10)
"""Points in one unit of log-odds: a lead of 400 points wins 10 times of 11."""
ANCHOR = 1000.0
"""Rating of the baseline, or of the mean of a group without it."""
POWER = 0.8
"""The probability that `more_votes` do decide a pair, if the difference is as estimated."""
MOST_VOTES = 10_000
"""More than this isn't practical: the two are too close to call."""


def rate(
    votes: Votes,
    *,
    confidence: float = 0.95,
    prior: float = 1.0,
    style_control: bool = False,
    baseline: str | None = None,
    both_bad: BothBad = "leave_out",
) -> Leaderboard:
    """Compute the leaderboard of these votes.

    `prior` is the strength of Firth's penalty (0 is plain maximum likelihood, which is infinite where one side never
    lost). `both_bad="tie"` counts both-bad as a tie for the ratings, as Chatbot Arena does; otherwise it says nothing
    about which is better, and is left out of them.

    Raises:
        VotesError: an unknown baseline, an invalid confidence, style control of votes without style, or no finite
            maximum (with prior 0 only).
    """
    if not 0 < confidence < 1:
        raise VotesError(f"confidence is {confidence}, but must be between 0 and 1, such as 0.95.")
    if baseline is not None and baseline not in votes.models:
        raise VotesError(f"The baseline {baseline!r} has no ratings. Models with ratings: {', '.join(votes.models)}.")
    fitted = FittedVotes.from_votes(votes, prior=prior, style_control=style_control, both_bad=both_bad)
    table = _count_table(votes)
    group = fitted.group if fitted else np.arange(len(votes.models))
    estimates = _estimate(votes, fitted, baseline, confidence)
    pairs = tuple(
        _pair(votes.models[a], votes.models[b], table[a, b].tolist(), estimates.pairs.get((a, b)))
        for a, b in combinations(range(len(votes.models)), 2)
    )
    return Leaderboard(
        models=_standings(votes, table, group, estimates.ratings, pairs),
        pairs=pairs,
        votes=len(votes),
        raters=len(compact(votes.rater)[0]),
        confidence=confidence,
        baseline=baseline,
        style=_style(fitted, confidence) if style_control else None,
        at_large=fitted.at_large if fitted else (),
        agreement=verdict_agreement(votes, confidence),
        position=_position_bias(votes, confidence),
    )


def _count_table(votes: Votes) -> Codes:
    """Return (models, models, 4): the row model's wins, losses, ties and both-bad against the column model."""
    models = len(votes.models)
    table = np.zeros((models, models, 4), np.int64)
    for model, opponent, won in ((votes.left, votes.right, LEFT), (votes.right, votes.left, RIGHT)):
        result = np.where(votes.outcome == won, LEFT, np.where(votes.outcome >= TIE, votes.outcome, RIGHT))
        cell = (model.astype(np.int64) * models + opponent) * 4 + result
        table += np.bincount(cell, minlength=models * models * 4).reshape(table.shape)
    return table


@dataclass(frozen=True)
class _Estimates:
    """Estimates for models and pairs, by code; those that can't be rated or compared are missing."""

    ratings: dict[int, Interval]
    pairs: dict[tuple[int, int], tuple[Interval, int | None]]


def _estimate(votes: Votes, fitted: FittedVotes | None, baseline: str | None, confidence: float) -> _Estimates:
    if fitted is None:
        return _Estimates({}, {})
    group, sizes = fitted.group, np.bincount(fitted.group)
    rated = [code for code, number in enumerate(group.tolist()) if sizes[number] > 1]
    pairs = [(a, b) for a, b in combinations(rated, 2) if group[a] == group[b]]
    unit = np.eye(len(votes.models))
    anchors = _anchors(group, None if baseline is None else votes.models.index(baseline))
    differences = np.array([unit[a] - unit[b] for a, b in pairs])
    contrast = fitted.contrast(np.vstack([(unit - anchors)[rated], differences]))
    intervals, more = _intervals(contrast, confidence), _more_votes(contrast, confidence)
    ratings = [Interval(ANCHOR + at.value, ANCHOR + at.lower, ANCHOR + at.upper) for at in intervals[: len(rated)]]
    compared = zip(intervals[len(rated) :], more[len(rated) :], strict=True)
    return _Estimates(dict(zip(rated, ratings, strict=True)), dict(zip(pairs, compared, strict=True)))


def _anchors(group: Codes, baseline: int | None) -> Numbers:
    """Return (models, models): for each model the weights of those whose mean is 1000."""
    same = (group[:, None] == group[None, :]).astype(np.float64)
    if baseline is not None:
        members = same[baseline] > 0
        same[members] = np.eye(len(group))[baseline]
    return np.asarray(same / same.sum(axis=1, keepdims=True))


def _pair(model_a: str, model_b: str, counts: list[int], estimate: tuple[Interval, int | None] | None) -> PairStanding:
    wins, losses, ties, both_bad = counts
    difference, more = estimate if estimate is not None else (None, None)
    decided = difference is not None and (difference.lower > 0 or difference.upper < 0)
    return PairStanding(
        model_a=model_a,
        model_b=model_b,
        votes=sum(counts),
        wins_a=wins,
        wins_b=losses,
        ties=ties,
        both_bad=both_bad,
        difference=difference,
        win_rate_a=None if difference is None else _win_rate(difference),
        decided=decided,
        more_votes=None if decided else more,
    )


def _find_worse(pair: PairStanding) -> str | None:
    """Return the model that is significantly worse."""
    if not pair.decided or pair.difference is None:
        return None
    return pair.model_b if pair.difference.lower > 0 else pair.model_a


def _standings(
    votes: Votes, table: Codes, group: Codes, ratings: dict[int, Interval], pairs: tuple[PairStanding, ...]
) -> tuple[ModelStanding, ...]:
    times_beaten = Counter(_find_worse(pair) for pair in pairs)

    def sort_key(code: int) -> tuple[bool, int, float]:
        return code not in ratings, int(group[code]), -ratings[code].value if code in ratings else 0.0

    def standing(code: int) -> ModelStanding:
        model, (wins, losses, ties, both_bad) = votes.models[code], table[code].sum(axis=0).tolist()
        rank = 1 + times_beaten[model] if code in ratings else None
        count = wins + losses + ties + both_bad
        return ModelStanding(model, ratings.get(code), rank, int(group[code]), count, wins, losses, ties, both_bad)

    return tuple(standing(code) for code in sorted(range(len(votes.models)), key=sort_key))


def _intervals(contrast: Contrast, confidence: float) -> list[Interval]:
    """Return intervals in points."""
    value = POINTS * contrast.value
    error = POINTS * student(contrast.freedom, confidence) * np.sqrt(contrast.variance)
    rows: Numbers = np.stack([value, value - error, value + error], axis=1)
    return [Interval(*row) for row in rows.tolist()]


def _more_votes(contrast: Contrast, confidence: float) -> list[int | None]:
    chance = expit(contrast.value)
    independent = contrast.if_independent * chance * (1 - chance)
    of_one_vote = np.divide(contrast.variance, independent, out=np.zeros_like(independent), where=independent > 0)
    rows = zip(contrast.value.tolist(), contrast.variance.tolist(), of_one_vote.tolist(), strict=True)
    return [_votes_to_decide(value, variance, of_one, confidence) for value, variance, of_one in rows]


def _votes_to_decide(difference: float, variance: float, vote_variance: float, confidence: float) -> int | None:
    """Return the votes between the two that clear the interval of zero with probability `POWER`; None if too many.

    `difference` and the variances (of the current difference; of one more vote, clustering included) are in
    log-odds. Precisions add up: 1 ÷ variance + N ÷ vote_variance.
    """
    if difference == 0 or vote_variance <= 0 or variance <= 0:
        return None
    wanted = ((normal(0.5 + confidence / 2) + normal(POWER)) / difference) ** 2
    votes = max(math.ceil(vote_variance * (wanted - 1 / variance)), 1)
    return votes if votes <= MOST_VOTES else None


def _win_rate(difference: Interval) -> Interval:
    chances = [float(expit(points / POINTS)) for points in (difference.value, difference.lower, difference.upper)]
    return Interval(*chances)


def _style(fitted: FittedVotes | None, confidence: float) -> dict[str, Interval]:
    if fitted is None or not fitted.style:
        return {}
    return dict(zip(fitted.style, _intervals(fitted.style_effects(), confidence), strict=True))


def _position_bias(votes: Votes, confidence: float) -> PositionBias:
    decided = votes.select((votes.outcome == LEFT) | (votes.outcome == RIGHT))
    left = (decided.outcome == LEFT).astype(np.float64)
    return PositionBias(int(left.sum()), len(left), estimate_rate(left, decided.rater, decided.prompt, confidence))
