"""Rows per second and peak memory of checking and cleaning, beside `datasets` and pandas under the same rules.

    python benchmarks/cleaning.py                          # 100,000 rows, some minutes
    python benchmarks/cleaning.py --rows 100000 1000000    # a million too

Rows are made up, Alpaca-like, some 400 characters each: one in fifty repeats an earlier one, one in three has white
space to mend, one in ten letters beyond ASCII. Every case is a process of its own, so that its peak memory, in 10^6
bytes with libraries loaded, is its own. All cases check that the texts are there and not empty, bring them into NFC
without blanks at line ends, and drop exact duplicates. CPU seconds are those of all processes: they tell more than the
clock on a busy machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

REPEATED = 0.02
FOREIGN = 0.1
SEED = 11
CHUNK_ROWS = 50_000

Counted = tuple[int, float]
"""Rows that stayed, and seconds from the opening of the file."""


def make_rows(path: Path, rows: int) -> None:
    """Writes `rows` Alpaca records; the words have the frequencies of running text."""
    draw = random.Random(SEED)
    words = [_word(draw) for _ in range(20_000)]
    plain = [word if word.isascii() else "the" for word in words]
    weights = list(accumulate(1 / (rank + 3) for rank in range(len(words))))
    recent: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            if recent and draw.random() < REPEATED:
                file.write(draw.choice(recent))
                continue
            known = words if draw.random() < FOREIGN else plain
            line = (
                json.dumps(_record(draw.choices(known, cum_weights=weights, k=60), row, draw), ensure_ascii=False)
                + "\n"
            )
            if len(recent) < 1000:
                recent.append(line)
            file.write(line)


def _word(draw: random.Random) -> str:
    """A made-up word; one in twenty has letters beyond ASCII."""
    letters = "etaoinshrdlucmfwypvbgk" if draw.random() < 0.95 else "éüößçñ你好世界語"
    return "".join(draw.choices(letters, k=draw.randint(2, 9)))


def _record(words: list[str], row: int, draw: random.Random) -> dict[str, str]:
    steps = [" ".join(words[place : place + 12]).capitalize() for place in range(12, 60, 12)]
    untidy = row % 3 == 0
    output = (".  \n" if untidy else ".\n").join(f"{place}. {step}" for place, step in enumerate(steps, start=1))
    return {"instruction": " ".join(words[:12]) + "?", "input": "", "output": f"{output} {draw.randint(1, 9999)}."}


def ours(path: Path, **config: object) -> Counted:
    """`clean` on `iter_examples`."""
    from training.data.cleaning.clean import CleaningConfig, Kept, clean
    from training.data.formats.read import iter_examples

    settings = CleaningConfig(**config)  # type: ignore[arg-type]
    start = time.perf_counter()
    kept = sum(isinstance(outcome, Kept) for outcome in clean(iter_examples(path), settings))
    return kept, time.perf_counter() - start


def tidy(text: str) -> str:
    """One text under the rules that all cases share."""
    from training.data.cleaning.normalizing import normalize_unicode, normalize_whitespace

    return normalize_whitespace(normalize_unicode(text))


def with_datasets(path: Path) -> Counted:
    """`load_dataset`, `filter`, `map` and a set of digests; two processes where it can."""
    import datasets

    datasets.disable_progress_bars()
    seen: set[bytes] = set()

    def cleaned(row: dict[str, str]) -> dict[str, object]:
        instruction, output = tidy(row["instruction"]), tidy(row["output"])
        digest = hashlib.blake2b(f"{instruction}\0{output}".encode(), digest_size=16).digest()
        return {"instruction": instruction, "output": output, "digest": digest}

    def is_new(row: dict[str, bytes]) -> bool:
        if row["digest"] in seen:
            return False
        seen.add(row["digest"])
        return True

    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
        rows = rows.filter(lambda row: bool(row["instruction"].strip() and row["output"].strip()), num_proc=2)
        rows = rows.map(cleaned, num_proc=2).filter(is_new)
        return len(rows), time.perf_counter() - start


def with_pandas(path: Path) -> Counted:
    """`read_json` in chunks, `map` and `duplicated`; all rows stay in memory, for that is how pandas finds them."""
    import pandas as pd

    start = time.perf_counter()
    chunks = []
    for chunk in pd.read_json(path, lines=True, chunksize=CHUNK_ROWS):
        there = chunk[(chunk["instruction"].str.strip() != "") & (chunk["output"].str.strip() != "")]
        chunks.append(there[["instruction", "output"]].map(tidy))
    rows = pd.concat(chunks).drop_duplicates()
    return len(rows), time.perf_counter() - start


CASES: dict[str, Callable[[Path], Counted]] = {
    "tuneloop: check + exact duplicates": lambda path: ours(path, near_duplicates=None, personal_data="ignore"),
    "datasets, 2 processes": with_datasets,
    "pandas": with_pandas,
    "tuneloop: + personal data": lambda path: ours(path, near_duplicates=None),
    "tuneloop: + near duplicates": lambda path: ours(path),
}


def run_case(name: str, path: Path) -> None:
    """Prints what one case came to as JSON; runs in a process of its own."""
    kept, seconds = CASES[name](path)
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    times = os.times()
    cpu = times.user + times.system + times.children_user + times.children_system
    print(json.dumps({"kept": kept, "seconds": seconds, "cpu": cpu, "peak_mb": max(own, children) * 1024 / 1e6}))


def main() -> None:
    """Makes the rows, runs every case and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000], help="sizes to measure (default: 100000)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="cases to run (default: all)")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        run_case(arguments.case, arguments.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        for rows in arguments.rows:
            path = Path(folder) / f"{rows}.jsonl"
            make_rows(path, rows)
            measure(path, rows, arguments.only)
            path.unlink()


def measure(path: Path, rows: int, cases: list[str]) -> None:
    """Runs `cases` on `path` and prints a row for each, with its speed as a multiple of the first case's."""
    print(f"\n{rows:,} rows, {path.stat().st_size / rows:.0f} bytes each", flush=True)
    print(f"{'':<36}{'kept':>10}{'seconds':>10}{'rows/s':>10}{'CPU s':>8}{'peak MB':>10}{'speed':>8}{'memory':>8}")
    first: dict[str, float] = {}
    for name in cases:
        command = [sys.executable, __file__, "--case", name, "--file", str(path)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        first = first or found
        speed, memory = first["seconds"] / found["seconds"], found["peak_mb"] / first["peak_mb"]
        print(
            f"{name:<36}{found['kept']:>10,}{found['seconds']:>10.1f}{rows / found['seconds']:>10,.0f}"
            f"{found['cpu']:>8.1f}{found['peak_mb']:>10,.0f}{speed:>7.2f}×{memory:>7.2f}×",
            flush=True,
        )


if __name__ == "__main__":
    main()
