"""How many more votes would decide a pair. Knows no models."""

from __future__ import annotations

import math

from evaluation.arena.intervals import normal

POWER = 0.8
"""The chance that the votes told of do decide, if the difference is what it seems."""
MOST_VOTES = 10_000
"""More than this is no plan: the two are too close to call."""


def more_votes(difference: float, variance: float, vote_variance: float, confidence: float) -> int | None:
    """Votes between the two after which the interval would be clear of zero with a chance of `POWER`; None if too many.

    `difference` and the variances (of the difference now; of one more vote's word on it, clustering included) are in
    log-odds. Precisions add up: 1 ÷ variance + N ÷ vote_variance.
    """
    if difference == 0 or vote_variance <= 0 or variance <= 0:
        return None
    wanted = ((normal(0.5 + confidence / 2) + normal(POWER)) / difference) ** 2
    votes = max(math.ceil(vote_variance * (wanted - 1 / variance)), 1)
    return votes if votes <= MOST_VOTES else None
