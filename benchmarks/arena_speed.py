"""How long a leaderboard of a million votes takes: ours beside arena-rank's, the same votes, the same run.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install arena-rank
    python -m benchmarks.arena_speed --peer /tmp/peer/bin/python [--votes 1000000] [--rounds 3]

Ours begins once with columns of codes and once with columns of words, as a query gives them, and makes all of it:
ratings and pair intervals clustered by rater and prompt, agreement, position bias. The peer makes ratings and intervals
that take votes as independent, from words; a first round, in which JAX compiles, isn't counted. Rounds alternate; the
table has the medians. CPU seconds are those of all threads: on a busy machine they tell more than the clock.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.arena_coverage import Scenario, arena
from evaluation.arena import VERDICTS, Votes, rate

PEER = """
import json, sys, time
import numpy, pandas
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.utils.data_utils import PairDataset

columns = numpy.load(sys.argv[1])
table = pandas.DataFrame({name: columns[name] for name in columns})
for line in sys.stdin:
    begun = time.perf_counter(), time.process_time()
    dataset = PairDataset.from_pandas(table)
    found = BradleyTerry(n_competitors=len(dataset.competitors)).compute_ratings_and_cis(dataset)
    found["rating_upper"].block_until_ready()
    print(json.dumps((time.perf_counter() - begun[0], time.process_time() - begun[1])), flush=True)
"""


Times = tuple[float, float]
"""Seconds by the clock, and of the CPU."""


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="a Python that has arena-rank")
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    votes = arena(
        Scenario("speed", 6, options.votes, 200, 5000, rater_liking=0.7, prompt_liking=0.7, tie=0.5),
        np.random.default_rng(0),
    )
    names = np.array(votes.models)
    words = {
        "left": names[votes.left].tolist(),
        "right": names[votes.right].tolist(),
        "verdict": np.array(VERDICTS)[votes.outcome].tolist(),
        "rater": votes.rater.tolist(),
        "prompt": votes.prompt.tolist(),
    }
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "votes.npz"
        winner = np.array(("model_a", "model_b", "tie", "both_bad"))[votes.outcome]
        np.savez(path, model_a=names[votes.left], model_b=names[votes.right], winner=winner)
        with subprocess.Popen(
            [options.peer, "-c", PEER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as peer:
            taken = measured(
                {
                    "ours, from codes": lambda: seconds(lambda: rate(votes)),
                    "ours, from words": lambda: seconds(lambda: rate(Votes.from_columns(**words))),
                    "arena-rank, from words": lambda: ask(peer),
                },
                options.rounds,
            )
            peer.stdin.close() if peer.stdin else None
    print(f"| {len(votes)} votes | seconds | ÷ arena-rank | CPU seconds | ÷ arena-rank |\n|---|---|---|---|---|")
    medians = {what: np.median(times, axis=0) for what, times in taken.items()}
    for what, (clock, cpu) in medians.items():
        of_clock, of_cpu = np.array((clock, cpu)) / medians["arena-rank, from words"]
        print(f"| {what} | {clock:.2f} | {of_clock:.2f} | {cpu:.2f} | {of_cpu:.2f} |")


def measured(ways: dict[str, Callable[[], Times]], rounds: int) -> dict[str, list[Times]]:
    """Seconds of each way in each round; one more round before, to warm up."""
    taken: dict[str, list[Times]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            found = way()
            if turn:
                taken[name].append(found)
    return taken


def seconds(work: Callable[[], object]) -> Times:
    """How long it takes."""
    begun = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def ask(peer: subprocess.Popen[str]) -> Times:
    """How long the peer says that it took."""
    if peer.stdin is None or peer.stdout is None:
        raise RuntimeError("The peer must be started with pipes.")
    peer.stdin.write("again\n")
    peer.stdin.flush()
    clock, cpu = json.loads(peer.stdout.readline())
    return clock, cpu


if __name__ == "__main__":
    main()
