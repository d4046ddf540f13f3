"""Our Bradley–Terry ratings beside those of `arena-rank`, Chatbot Arena's own package, on the same votes.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install arena-rank
    python -m benchmarks.arena_rank --peer /tmp/peer/bin/python [--votes 20000]

Ours in the peer's mode: no prior, both-bad counted as a tie, every vote a rater and a prompt of its own. The peer needs
JAX and stays out of our environment. Printed are both ratings, the greatest difference, the widths of the intervals,
and the ratings in our own mode, which leaves both-bad out.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import random
import subprocess

from evaluation.arena import VERDICTS, Leaderboard, Vote, Votes, rate

MODELS = ("ash", "beech", "cedar", "elm", "fir", "oak")
PEER = """
import json, sys
import pandas
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.utils.data_utils import PairDataset

dataset = PairDataset.from_pandas(pandas.read_csv(sys.stdin))
found = BradleyTerry(n_competitors=len(dataset.competitors)).compute_ratings_and_cis(dataset)
columns = (found[name].tolist() for name in ("ratings", "rating_lower", "rating_upper"))
print(json.dumps(dict(zip(found["competitors"], zip(*columns)))))
"""
OUTCOME = dict(zip(VERDICTS, ("model_a", "model_b", "tie", "both_bad"), strict=True))
"""Our word → the peer's."""


def main() -> None:
    """Rates with both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="a Python that has arena-rank")
    parser.add_argument("--votes", type=int, default=20_000)
    options = parser.parse_args()
    votes = drawn_votes(options.votes)
    ours, theirs = by_the_peers_rules(votes), peer_ratings(options.peer, votes)
    own = {model.model: model.rating for model in rate(Votes.of(votes)).models}
    print("| model | ours | arena-rank | interval, ours | interval, arena-rank | both-bad left out |")
    print("|---|---|---|---|---|---|")
    furthest = 0.0
    for model in ours.models:
        rating, (value, lower, upper), without = model.rating, theirs[model.model], own[model.model]
        if rating is None or without is None:
            raise SystemExit(f"{model.model} has no rating. Draw more votes.")
        furthest = max(furthest, abs(rating.value - value))
        print(
            f"| {model.model} | {rating.value:.3f} | {value:.3f} | ±{(rating.upper - rating.lower) / 2:.2f} "
            f"| ±{(upper - lower) / 2:.2f} | {without.value:.1f} |"
        )
    print(f"\nGreatest difference over {len(votes)} votes: {furthest:.4f} points.")


def drawn_votes(count: int, seed: int = 6) -> list[Vote]:
    """Votes between six models of different strength; a fifth are ties, a tenth both-bad, pairs are uneven."""
    source = random.Random(seed)
    votes = []
    for number in range(count):
        left, right = source.sample(range(len(MODELS)), 2)
        if left + right == 9 and source.random() < 0.7:
            left, right = 0, 1
        chance = 1 / (1 + math.exp(0.35 * (right - left)))
        kind, won = source.random(), source.random() < chance
        verdict = "both_bad" if kind < 0.1 else "tie" if kind < 0.3 else "left" if won else "right"
        votes.append(Vote(MODELS[left], MODELS[right], verdict, rater=str(number), prompt=str(number)))
    return votes


def by_the_peers_rules(votes: list[Vote]) -> Leaderboard:
    """Our ratings with the peer's choices."""
    return rate(Votes.of(votes), prior=0.0, both_bad="tie")


def peer_ratings(python: str, votes: list[Vote]) -> dict[str, tuple[float, float, float]]:
    """Model → rating, lower and upper end, as arena-rank gives them."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("model_a", "model_b", "winner"))
    writer.writerows((vote.left, vote.right, OUTCOME[vote.verdict]) for vote in votes)
    done = subprocess.run([python, "-c", PEER], input=table.getvalue(), capture_output=True, text=True, check=True)
    return {model: tuple(numbers) for model, numbers in json.loads(done.stdout).items()}


if __name__ == "__main__":
    main()
