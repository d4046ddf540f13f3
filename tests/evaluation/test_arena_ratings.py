"""Ratings from votes, against values made by hand and those of `arena-rank`, and what is never claimed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.arena_coverage import Scenario, coverage
from benchmarks.arena_rank import by_the_peers_rules, drawn_votes
from evaluation.arena import Interval, Leaderboard, ModelStanding, PairStanding, Vote, Votes, VotesError, rate

ARENA_RANK = {
    "oak": 1099.1595,
    "fir": 1054.7062,
    "elm": 1029.5003,
    "cedar": 976.9341,
    "beech": 942.7371,
    "ash": 896.9628,
}
"""What arena-rank 0.1.1 says of `drawn_votes(12_000)`; `python -m benchmarks.arena_rank` asks it again."""


def cast(one: str, other: str, /, **counts: int) -> list[Vote]:
    """So many votes of each verdict, each by another rater on another prompt."""
    verdicts = [verdict for verdict, count in counts.items() for _ in range(count)]
    return [
        Vote(one, other, verdict, f"{one}{other}{number}", f"{one}{other}{number}")
        for number, verdict in enumerate(verdicts)
    ]


def standing(board: Leaderboard, model: str) -> ModelStanding:
    (found,) = [standing for standing in board.models if standing.model == model]
    return found


def rating(board: Leaderboard, model: str) -> Interval:
    found = standing(board, model).rating
    assert found is not None
    return found


def pair(board: Leaderboard) -> PairStanding:
    (only,) = board.pairs
    return only


def difference(board: Leaderboard) -> Interval:
    found = pair(board).difference
    assert found is not None
    return found


def width(interval: Interval) -> float:
    return interval.upper - interval.lower


def test_thirty_wins_of_forty_are_the_log_of_three() -> None:
    board = rate(Votes.of(cast("a", "b", left=30, right=10)), prior=0)
    assert difference(board).value == pytest.approx(400 * math.log10(3))
    assert rating(board, "a").value == pytest.approx(1000 + 200 * math.log10(3))
    assert pair(board).win_rate_a is not None
    assert pair(board).win_rate_a.value == pytest.approx(0.75)


def test_prior_adds_half_a_win_to_each_of_two_models() -> None:
    board = rate(Votes.of(cast("a", "b", left=30, right=10)))
    assert difference(board).value == pytest.approx(400 * math.log10(30.5 / 10.5))


def test_tie_is_half_a_win_for_each() -> None:
    board = rate(Votes.of(cast("a", "b", left=20, tie=20)), prior=0)
    assert difference(board).value == pytest.approx(400 * math.log10(3))


def test_both_bad_is_counted_and_stays_out_of_the_rating_unless_asked_for() -> None:
    votes = Votes.of(cast("a", "b", left=20, right=10, tie=5, both_bad=15))
    apart, as_tie = rate(votes, prior=0), rate(votes, prior=0, both_bad="tie")
    assert difference(apart).value == pytest.approx(400 * math.log10(22.5 / 12.5))
    assert difference(as_tie).value == pytest.approx(400 * math.log10(30 / 20))
    model = standing(apart, "b")
    assert (model.wins, model.losses, model.ties, model.both_bad, model.votes) == (10, 20, 5, 15, 50)
    assert (model.win_rate, model.tie_rate, model.both_bad_rate) == (0.2, 0.1, 0.3)


def test_ratings_are_those_of_arena_rank() -> None:
    board = by_the_peers_rules(drawn_votes(12_000))
    assert [model.model for model in board.models] == list(ARENA_RANK)
    for model, theirs in ARENA_RANK.items():
        assert rating(board, model).value == pytest.approx(theirs, abs=0.1)


def test_model_that_never_lost_has_a_finite_rating_and_a_wide_interval() -> None:
    board = rate(Votes.of(cast("a", "b", left=7)))
    assert difference(board).value == pytest.approx(400 * math.log10(15))
    assert width(difference(board)) > 400
    few, many = (width(difference(rate(Votes.of(cast("a", "b", left=count))))) for count in (7, 70))
    assert many < 1.1 * few


def test_ties_alone_are_no_proof_that_two_are_equal() -> None:
    few, many = (difference(rate(Votes.of(cast("a", "b", tie=count)))) for count in (3, 300))
    assert few.value == pytest.approx(0)
    assert width(few) > 200
    assert width(many) < 20


def test_models_that_no_votes_connect_are_not_compared() -> None:
    board = rate(Votes.of(cast("a", "b", left=9, right=4) + cast("c", "d", left=9, right=4) + cast("b", "e", tie=3)))
    groups = {model.model: model.group for model in board.models}
    assert groups == {"a": 0, "b": 0, "e": 0, "c": 1, "d": 1}
    compared = {(pair.model_a, pair.model_b) for pair in board.pairs if pair.difference is not None}
    assert compared == {("a", "b"), ("a", "e"), ("b", "e"), ("c", "d")}
    assert rating(board, "c").value + rating(board, "d").value == pytest.approx(2000)


def test_models_that_never_met_are_compared_through_a_third() -> None:
    board = rate(Votes.of(cast("a", "b", left=30, right=10) + cast("b", "c", left=30, right=10)), prior=0)
    (through,) = [pair for pair in board.pairs if (pair.model_a, pair.model_b) == ("a", "c")]
    assert through.votes == 0
    assert through.difference is not None
    assert through.difference.value == pytest.approx(400 * math.log10(9))
    assert width(through.difference) > width(board.pairs[0].difference or Interval(0, 0, 0))


@pytest.mark.parametrize("votes", [[], cast("a", "b", both_bad=3)])
def test_no_decisive_vote_is_no_rating(votes: list[Vote]) -> None:
    board = rate(Votes.of(votes))
    assert board.votes == len(votes)
    assert [model.rating for model in board.models] == [None] * len(board.models)
    assert [(pair.difference, pair.decided, pair.more_votes) for pair in board.pairs] == [
        (None, False, None) for _ in board.pairs
    ]
    assert board.position.left_rate is None


def test_baseline_is_1000_without_doubt_and_others_are_told_against_it() -> None:
    votes = Votes.of(cast("a", "b", left=30, right=10) + cast("b", "c", left=30, right=10))
    board = rate(votes, baseline="b")
    assert rating(board, "b") == Interval(1000, 1000, 1000)
    (first, *_) = board.pairs
    assert first.difference is not None
    assert rating(board, "a").value == pytest.approx(1000 + first.difference.value)
    assert width(rating(board, "a")) == pytest.approx(width(first.difference))


def test_rank_is_one_more_than_the_models_that_are_better_beyond_doubt() -> None:
    board = rate(Votes.of(cast("a", "c", left=90, right=10) + cast("b", "c", left=88, right=12)))
    assert {model.model: model.rank for model in board.models} == {"a": 1, "b": 1, "c": 3}
    assert [pair.decided for pair in board.pairs] == [False, True, True]


def _turned(vote: Vote) -> Vote:
    verdict = {"left": "right", "right": "left"}.get(vote.verdict, vote.verdict)
    return vote._replace(left=vote.right, right=vote.left, verdict=verdict)


@pytest.mark.parametrize(
    "change",
    [lambda votes: [_turned(vote) for vote in votes], lambda votes: random.Random(1).sample(votes, len(votes))],
    ids=["sides turned", "order shuffled"],
)
def test_ratings_do_not_depend_on_sides_or_order(change: Callable[[list[Vote]], list[Vote]]) -> None:
    votes = drawn_votes(300)
    before, after = rate(Votes.of(votes)), rate(Votes.of(change(votes)))
    for model in before.models:
        assert rating(after, model.model).value == pytest.approx(rating(before, model.model).value)
        assert rating(after, model.model).lower == pytest.approx(rating(before, model.model).lower)


@pytest.mark.parametrize("cluster", ["rater", "prompt"])
def test_ten_votes_of_one_mind_are_worth_one(cluster: str) -> None:
    once = cast("a", "b", left=40, right=20)
    tenfold = [
        vote._replace(**dict.fromkeys({"rater", "prompt"} - {cluster}, f"{vote.rater}-{copy}"))
        for vote in once
        for copy in range(10)
    ]
    apart = [vote._replace(rater=str(number), prompt=str(number)) for number, vote in enumerate(tenfold)]
    single, together, independent = (width(difference(rate(Votes.of(votes)))) for votes in (once, tenfold, apart))
    assert together == pytest.approx(single, rel=0.05)
    assert independent == pytest.approx(single / math.sqrt(10), rel=0.1)


@pytest.mark.parametrize(
    ("raters", "prompts", "at_large"),
    [
        ("a", "pqrst", ("prompts",)),
        ("ab", "pqrst", ("prompts",)),
        ("abcde", "p", ("raters",)),
        ("abcde", "pqrst", ("raters", "prompts")),
        ("a", "p", ()),
    ],
)
def test_two_raters_or_prompts_do_not_stand_for_all(raters: str, prompts: str, at_large: Sequence[str]) -> None:
    votes = [
        Vote("a", "b", "left" if number % 3 else "right", raters[number % len(raters)], prompts[number % len(prompts)])
        for number in range(60)
    ]
    assert rate(Votes.of(votes)).at_large == at_large


def test_votes_told_decide_about_as_often_as_said() -> None:
    first = cast("a", "b", left=30, right=20)
    more = pair(rate(Votes.of(first))).more_votes
    assert more is not None
    chance = 30.5 / 51
    source, decided = random.Random(3), 0
    for _ in range(200):
        won = sum(source.random() < chance for _ in range(more))
        decided += pair(rate(Votes.of([*first, *cast("a", "b", left=won, right=more - won)]))).decided
    assert 0.7 <= decided / 200 <= 0.9


def test_no_number_of_votes_is_told_where_none_would_do() -> None:
    assert pair(rate(Votes.of(cast("a", "b", left=50, right=50)))).more_votes is None
    assert pair(rate(Votes.of(cast("a", "b", left=90, right=10)))).more_votes is None


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario("independent", 3, 60, 10, 60, tie=0.5),
        Scenario("raters", 4, 200, 8, 200, rater_liking=0.9),
        Scenario("both", 3, 200, 10, 20, rater_liking=0.7, prompt_liking=0.7),
    ],
    ids=lambda scenario: scenario.name,
)
def test_intervals_cover_the_truth(scenario: Scenario) -> None:
    found = coverage(scenario, arenas=300, seed=1)
    assert 0.92 <= found.covered <= 0.98
    if scenario.rater_liking:
        assert found.covered_if_independent < 0.85


def test_higher_confidence_is_a_wider_interval() -> None:
    votes = Votes.of(cast("a", "b", left=30, right=20))
    assert width(difference(rate(votes, confidence=0.99))) > 1.2 * width(difference(rate(votes)))


def _two() -> Votes:
    return Votes.of(cast("a", "b", left=1, right=1))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: rate(_two(), baseline="c"), "'c' has no ratings. Models with ratings: a, b"),
        (lambda: rate(_two(), confidence=95), "confidence is 95"),
        (lambda: rate(_two(), style_control=True), "needs style_left and style_right"),
        (lambda: rate(Votes.of(cast("a", "b", left=9)), prior=0), "no finite maximum"),
        (lambda: Votes.of([Vote("a", "a", "left", "r", "p")]), "compared with itself"),
        (lambda: Votes.of([Vote("a", "b", "wins", "r", "p")]), r"\['wins'\] isn't a verdict"),
        (lambda: replace(_two(), rater=np.zeros(3, int)), "rater has 3 rows, but left has 2"),
        (lambda: replace(_two(), left=np.array([0, 7])), "left has codes from 0 to 7"),
    ],
)
def test_wrong_input_is_told_with_its_remedy(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(VotesError, match=words):
        wrong()
