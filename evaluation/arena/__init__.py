"""Ratings with confidence intervals from votes.

votes = Votes.of([Vote("tuned", "base", "left", rater="ann", prompt="p1"), …])
board = rate(votes, baseline="base")
board.models[0].rating  # Interval(value=1121.3, lower=1043.0, upper=1199.6)

docs/statistics.md says how each number is computed, and when none is given.
"""

from evaluation.arena.intervals import MeanScore, mean_scores
from evaluation.arena.krippendorff import agreement
from evaluation.arena.leaderboard import rate
from evaluation.arena.results import Agreement, Interval, Leaderboard, ModelStanding, PairStanding, PositionBias
from evaluation.arena.style import style_counts
from evaluation.arena.votes import STYLE, VERDICTS, Vote, Votes, VotesError

__all__ = [
    "STYLE",
    "VERDICTS",
    "Agreement",
    "Interval",
    "Leaderboard",
    "MeanScore",
    "ModelStanding",
    "PairStanding",
    "PositionBias",
    "Vote",
    "Votes",
    "VotesError",
    "agreement",
    "mean_scores",
    "rate",
    "style_counts",
]
