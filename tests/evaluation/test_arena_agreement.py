"""Agreement, position bias, style and means: what stands beside the ratings."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from evaluation.arena import STYLE, Vote, Votes, agreement, mean_scores, rate, style_counts

KRIPPENDORFF = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)
"""Four observers, twelve units: the example of "Computing Krippendorff's Alpha-Reliability" (2011), part C."""


@pytest.mark.parametrize(("metric", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_krippendorffs_own_example(
    metric: Literal["nominal", "ordinal", "interval"], alpha: float
) -> None:
    judged = [(unit, value) for rater in KRIPPENDORFF for unit, value in enumerate(rater) if value is not None]
    found = agreement([unit for unit, _ in judged], [value for _, value in judged], metric=metric)
    assert found.alpha == pytest.approx(alpha, abs=5e-4)
    assert found.items == 11
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower < alpha < found.upper <= 1


def test_agreement_by_chance_is_about_zero() -> None:
    source = random.Random(0)
    found = agreement([item for item in range(300) for _ in range(2)], [source.randrange(4) for _ in range(600)])
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower < 0 < found.upper


@pytest.mark.parametrize(
    ("item", "value", "items"),
    [([], [], 0), ([1, 2, 3], [1, 2, 1], 0), ([1, 1], [1, 2], 1), ([1, 1, 2, 2], [3, 3, 3, 3], 2)],
    ids=["nothing", "one rater each", "one item", "one value only"],
)
def test_alpha_is_not_given_where_it_is_undefined(item: list[int], value: list[int], items: int) -> None:
    found = agreement(item, value)
    assert (found.alpha, found.lower, found.upper, found.items) == (None, None, None, items)


def test_raters_who_saw_the_sides_turned_agree() -> None:
    votes = []
    for number in range(10):
        winner, loser = ("a", "b") if number % 2 else ("b", "a")
        votes.append(Vote(winner, loser, "left", "ann", f"p{number}", item=f"i{number}"))
        votes.append(Vote(loser, winner, "right", "ben", f"p{number}", item=f"i{number}"))
    assert rate(Votes.of(votes)).agreement.alpha == 1


def test_votes_on_no_shared_item_do_not_count_as_agreement() -> None:
    votes = [Vote("a", "b", "left", rater, "p") for rater in "xyz"]
    assert rate(Votes.of(votes)).agreement.items == 0


def test_rater_who_always_votes_left_shows_as_position_bias() -> None:
    votes = [Vote(*("ab" if number % 2 else "ba"), "left", f"r{number % 7}", f"p{number}") for number in range(80)]
    fair = [vote._replace(verdict="left" if vote.left == "a" else "right") for vote in votes]
    found, none = rate(Votes.of(votes)).position, rate(Votes.of(fair)).position
    assert (found.left_wins, found.decided) == (80, 80)
    assert found.left_rate is not None
    assert found.left_rate.lower > 0.9
    assert found.left_rate.upper == pytest.approx(1)
    assert none.left_rate is not None
    assert none.left_rate.lower < 0.5 < none.left_rate.upper


def _long_winded(votes: int) -> list[Vote]:
    """Raters like the longer answer and nothing else; model b's answers are longer."""
    source, cast = random.Random(5), []
    for number in range(votes):
        length = {"a": source.uniform(50, 300), "b": source.uniform(150, 400)}
        left, right = source.sample("ab", 2)
        longer = (length[left] - length[right]) / (length[left] + length[right] + 1)
        verdict = "left" if source.random() < 1 / (1 + 2.718 ** (-6 * longer)) else "right"
        styles = [[length[side], 0, 0, 0] for side in (left, right)]
        cast.append(Vote(left, right, verdict, f"r{number % 20}", f"p{number}", None, *styles))
    return cast


def test_style_control_takes_length_out_of_the_rating() -> None:
    votes = Votes.of(_long_winded(800))
    (plain,), (controlled,) = rate(votes).pairs, rate(votes, style_control=True).pairs
    style = rate(votes, style_control=True).style
    assert plain.difference is not None
    assert controlled.difference is not None
    assert plain.difference.upper < -100
    assert controlled.difference.lower < 0 < controlled.difference.upper
    assert style is not None
    assert set(style) == {"length"}
    assert style["length"].lower > 100


def test_style_is_not_told_unless_asked_for() -> None:
    assert rate(Votes.of(_long_winded(20))).style is None


def test_style_counts_markdown_outside_of_code() -> None:
    answer = (
        "# One\n\n- a **bold** word\n- another\n1. first\n\n```\n# not a heading\n- no item\n```\n## Two __strong__"
    )
    assert style_counts(answer) == (2, 3, 2)
    assert style_counts("") == (0, 0, 0)
    assert STYLE == ("length", "headers", "lists", "bold")


def test_mean_of_one_raters_many_scores_is_less_sure_than_of_many_raters() -> None:
    scores = [5, 5, 5, 5, 4, 4, 4, 4, 2, 2, 2, 2] * 2
    grouped = mean_scores(scores, list(scores), range(len(scores)))
    apart = mean_scores(scores, range(len(scores)), range(len(scores)))
    assert grouped is not None
    assert apart is not None
    assert grouped.mean == apart.mean == pytest.approx(11 / 3)
    assert grouped.lower is not None
    assert apart.lower is not None
    assert grouped.lower < apart.lower
    assert grouped.upper == 5


@pytest.mark.parametrize("scores", [[4], [5, 5, 5]])
def test_scores_without_spread_have_no_interval(scores: list[float]) -> None:
    found = mean_scores(scores, range(len(scores)), range(len(scores)))
    assert found is not None
    assert (found.mean, found.lower, found.upper, found.votes) == (scores[0], None, None, len(scores))


def test_mean_of_no_scores_is_none() -> None:
    assert mean_scores([], [], []) is None
