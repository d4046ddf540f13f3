"""Whether the leaderboard's intervals cover the truth as often as they say: simulated arenas whose truth is known.

    python -m benchmarks.arena_coverage [--arenas 2000] [--processes 2]

Each arena draws raters, prompts and votes; every rater and every prompt has likings of its own for each model (normal,
of the stated deviation in log-odds; 0 is none), so votes of one rater, or on one prompt, go together. The truth is what
Bradley–Terry makes of the chances averaged over all raters and prompts that could have been drawn. Counted is, over all
pairs of models of all arenas, how often the interval of the difference covers it. The last columns are for comparison:
the coverage of the interval that takes votes as independent (all else equal), and the median width of ours in points.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pool

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from evaluation.arena import Interval, Votes, rate
from evaluation.arena.leaderboard import POINTS
from evaluation.arena.strengths import Counts, fit_pairs, make_contrast_basis

SPREAD = 0.7
"""True strengths reach from −0.7 to 0.7: the best beats the worst 4 times of 5."""


@dataclass(frozen=True)
class Scenario:
    """How an arena is drawn."""

    name: str
    models: int
    votes: int
    raters: int
    prompts: int
    rater_liking: float = 0.0
    """Standard deviation of a rater's own liking for each model, log-odds."""
    prompt_liking: float = 0.0
    tie: float = 0.0
    """Half-width of the band in which a rater calls a tie, log-odds: 0.5 makes a quarter of all votes ties."""
    uneven: bool = False
    """Whether the r-th rater casts in proportion to 1 ÷ r."""


SCENARIOS = (
    Scenario("tiny", 3, 20, 5, 20),
    Scenario("tiny", 3, 20, 10, 20),
    Scenario("tiny", 6, 60, 10, 60, tie=0.5),
    Scenario("independent", 3, 60, 10, 60),
    Scenario("independent", 4, 100, 5, 100, tie=0.5),
    Scenario("independent", 4, 200, 20, 100),
    Scenario("independent", 6, 500, 50, 300, tie=0.5),
    Scenario("raters", 3, 60, 6, 60, rater_liking=0.7),
    Scenario("raters", 3, 200, 8, 200, rater_liking=0.7, tie=0.5),
    Scenario("raters", 4, 200, 5, 200, rater_liking=0.7),
    Scenario("raters", 6, 500, 50, 500, rater_liking=0.7, tie=0.5),
    Scenario("raters, uneven", 4, 300, 12, 200, rater_liking=0.7, uneven=True),
    Scenario("prompts", 3, 100, 20, 10, prompt_liking=0.7),
    Scenario("prompts", 4, 200, 20, 20, prompt_liking=0.7),
    Scenario("prompts", 6, 500, 50, 60, prompt_liking=0.7, tie=0.5),
    Scenario("both", 3, 200, 8, 20, rater_liking=0.7, prompt_liking=0.7),
    Scenario("both", 4, 300, 10, 30, rater_liking=0.7, prompt_liking=0.7, tie=0.5),
    Scenario("both", 4, 500, 5, 50, rater_liking=0.7, prompt_liking=0.7),
    Scenario("both", 6, 500, 25, 50, rater_liking=0.7, prompt_liking=0.7),
)


@dataclass(frozen=True)
class Coverage:
    """Counts over pairs of models."""

    covered: float
    """Share of the intervals that cover the truth."""
    covered_if_independent: float
    """The same of intervals that take votes as independent, in every fourth arena."""
    width: float
    """Median width of the intervals, points."""


def main() -> None:
    """Simulates and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arenas", type=int, default=2000, help="arenas of each scenario")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    print("| what goes together | models | votes | raters | prompts | ties | covered | if independent | width |")
    print("|---|---|---|---|---|---|---|---|---|")
    with Pool(options.processes) as pool:
        for scenario in SCENARIOS:
            share = options.arenas // options.processes
            parts = pool.starmap(coverage, [(scenario, share, seed) for seed in range(options.processes)])
            print(_row(scenario, parts), flush=True)


def coverage(scenario: Scenario, arenas: int, seed: int) -> Coverage:
    """Draws the arenas and counts."""
    random = np.random.default_rng([seed, scenario.votes, scenario.raters])
    true = truth(scenario)
    covered, independent, widths = [], [], []
    for number in range(arenas):
        votes = arena(scenario, random)
        for difference, true_one in _differences(votes, true):
            covered.append(difference.lower <= true_one <= difference.upper)
            widths.append(difference.upper - difference.lower)
        if number % 4 == 0:
            alone = np.arange(len(votes))
            plain = Votes(votes.models, votes.left, votes.right, votes.outcome, alone, alone)
            independent += [one.lower <= true_one <= one.upper for one, true_one in _differences(plain, true)]
    return Coverage(float(np.mean(covered)), float(np.mean(independent)), float(np.median(widths)))


def _differences(votes: Votes, true: NDArray[np.float64]) -> Iterator[tuple[Interval, float]]:
    """Each pair's interval and what it should cover; pairs that aren't comparable are left out."""
    for pair, difference in zip(rate(votes).pairs, true, strict=True):
        if pair.difference is not None:
            yield pair.difference, float(difference)


def arena(scenario: Scenario, random: np.random.Generator) -> Votes:
    """One arena's votes."""
    models, n = scenario.models, scenario.votes
    likelihood = 1 / np.arange(1, scenario.raters + 1) if scenario.uneven else np.ones(scenario.raters)
    rater = random.choice(scenario.raters, n, p=likelihood / likelihood.sum())
    prompt = random.integers(0, scenario.prompts, n)
    left = random.integers(0, models, n)
    right = (left + random.integers(1, models, n)) % models
    liking = random.normal(0, scenario.rater_liking, (scenario.raters, models))[rater]
    liking += random.normal(0, scenario.prompt_liking, (scenario.prompts, models))[prompt]
    liking += np.linspace(-SPREAD, SPREAD, models)
    vote = np.arange(n)
    lead = liking[vote, left] - liking[vote, right]
    drawn = random.random(n)
    wins, loses = expit(lead - scenario.tie), expit(-lead - scenario.tie)
    outcome = np.select([drawn < wins, drawn < wins + loses], [0, 1], 2)
    return Votes(tuple(f"model-{code}" for code in range(models)), left, right, outcome, rater, prompt)


def truth(scenario: Scenario) -> NDArray[np.float64]:
    """Points between the models of each pair, averaged over all raters and prompts (Gauss–Hermite quadrature)."""
    first, second = np.triu_indices(scenario.models, 1)
    strengths = np.linspace(-SPREAD, SPREAD, scenario.models)
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    deviation = np.sqrt(2 * (scenario.rater_liking**2 + scenario.prompt_liking**2))
    lead = (strengths[first] - strengths[second])[:, None] + deviation * nodes
    wins, loses = expit(lead - scenario.tie), expit(-lead - scenario.tie)
    score = (wins + (1 - wins - loses) / 2) @ (weights / weights.sum())
    basis = make_contrast_basis(np.zeros(scenario.models, dtype=np.int64))
    design = basis[first] - basis[second]
    fit = fit_pairs(design, Counts(first, second, np.ones(len(first)), score), prior=0.0)
    return np.asarray(POINTS * design @ fit.parameters)


def _row(scenario: Scenario, parts: Sequence[Coverage]) -> str:
    ours, plain, width = np.mean([(part.covered, part.covered_if_independent, part.width) for part in parts], axis=0)
    ties = "yes" if scenario.tie else "no"
    sizes = f"{scenario.models} | {scenario.votes} | {scenario.raters} | {scenario.prompts} | {ties}"
    return f"| {scenario.name} | {sizes} | {100 * ours:.1f} % | {100 * plain:.1f} % | {width:.0f} |"


if __name__ == "__main__":
    main()
