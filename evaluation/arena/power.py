"""How many more votes would decide a pair."""

from __future__ import annotations

import math

from evaluation.arena.intervals import normal

POWER = 0.8
"""The probability that this many votes do decide, if the difference is as estimated."""
MOST_VOTES = 10_000
"""More than this isn't practical: the two are too close to call."""


def more_votes(difference: float, variance: float, vote_variance: float, confidence: float) -> int | None:
    """Return the votes between the two that clear the interval of zero with probability `POWER`; None if too many.

    `difference` and the variances (of the current difference; of one more vote, clustering included) are in
    log-odds. Precisions add up: 1 ÷ variance + N ÷ vote_variance.
    """
    if difference == 0 or vote_variance <= 0 or variance <= 0:
        return None
    wanted = ((normal(0.5 + confidence / 2) + normal(POWER)) / difference) ** 2
    votes = max(math.ceil(vote_variance * (wanted - 1 / variance)), 1)
    return votes if votes <= MOST_VOTES else None
