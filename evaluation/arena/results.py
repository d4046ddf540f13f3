"""The results of the statistics as plain numbers: ratings in Elo-like points, rates from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class ModelStanding:
    """One model's standing."""

    model: str
    rating: Interval | None
    """Points on the scale 400 (a lead of 400 points wins 10 of 11); 1000 is the baseline, or its group's mean without
    one. None where there is no estimate: no decisive vote, or alone in its group."""
    rank: int | None
    """1 + how many models of its group are significantly better (the pair's interval excludes zero)."""
    group: int
    """Models of one group are connected by votes; ratings of different groups can't be compared. 0 is the largest."""
    votes: int
    wins: int
    losses: int
    ties: int
    both_bad: int

    @property
    def win_rate(self) -> float | None:
        """Wins ÷ votes; with ties, both-bad and losses it makes 1."""
        return self.wins / self.votes if self.votes else None

    @property
    def tie_rate(self) -> float | None:
        """Ties ÷ votes."""
        return self.ties / self.votes if self.votes else None

    @property
    def both_bad_rate(self) -> float | None:
        """Both-bad ÷ votes: the only absolute assessment among these numbers."""
        return self.both_bad / self.votes if self.votes else None


@dataclass(frozen=True)
class PairStanding:
    """The comparison of two models; `model_a` comes first in `Votes.models`."""

    model_a: str
    model_b: str
    votes: int
    """Direct votes; a pair without any can still be compared via others of its group."""
    wins_a: int
    wins_b: int
    ties: int
    both_bad: int
    difference: Interval | None
    """Rating of a − rating of b in points; None across groups."""
    win_rate_a: Interval | None
    """The probability that a is preferred (a tie counts as ½) by the ratings; None across groups."""
    decided: bool
    """Whether the interval excludes zero."""
    more_votes: int | None
    """About how many more votes between the two would decide it; None if decided, or if no practical number would."""


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's α: 1 is full agreement, 0 what chance would give."""

    alpha: float | None
    """None with fewer than 2 items, or when all values are equal (chance agreement is then undefined)."""
    lower: float | None
    upper: float | None
    items: int
    """Items with two or more raters: α on few of them means nothing."""


@dataclass(frozen=True)
class PositionBias:
    """How often the left answer wins where one of the two wins; ½ is no bias, because the order is random."""

    left_wins: int
    decided: int
    """Votes with a winner."""
    left_rate: Interval | None
    """None without a decided vote."""


@dataclass(frozen=True)
class Leaderboard:
    """The results for a set of votes."""

    models: tuple[ModelStanding, ...]
    """Best first; models without a rating last."""
    pairs: tuple[PairStanding, ...]
    """Every pair of models, whether compared directly or not."""
    votes: int
    raters: int
    confidence: float
    baseline: str | None
    style: dict[str, Interval] | None
    """With style control: by how many points one more standard deviation of a trait raises an answer."""
    at_large: tuple[str, ...]
    """The populations that the intervals generalise to: "raters", "prompts", both or neither; a missing one had too few
    members, and the intervals hold for those who voted."""
    agreement: Agreement
    """Of the raters' verdicts."""
    position: PositionBias
