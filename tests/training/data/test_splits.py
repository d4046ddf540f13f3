"""Splits keep similar rows on one side, give every part its share, and depend on nothing but the seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.data.examples import Example, Message
from training.data.formats.read import DataError
from training.data.splits import Split, Splitter, refuse_leakage, remove_leakage, split_examples

FILLER = "the answer to this goes on for a while so that texts are long enough to be compared with one another"


def words(number: int) -> str:
    """Twelve words that no other number has."""
    return " ".join(f"{letter}{number}" for letter in "abcdefghijkl")


def chat(line: int, prompt: str, answer: str, system: str = "") -> Example:
    opening = (Message("system", system),) if system else ()
    return Example(line, (*opening, Message("user", prompt), Message("assistant", answer)))


def preference(line: int, prompt: str, chosen: str, rejected: str) -> Example:
    answers = [(Message("assistant", text),) for text in (chosen, rejected)]
    return Example(line, (Message("user", prompt),), chosen=answers[0], rejected=answers[1])


DIFFERENT = [chat(line, words(line), words(-line)) for line in range(1, 101)]


def side_of(split: Split) -> dict[int, str]:
    parts = {"training": split.training, "validation": split.validation, "holdout": split.holdout}
    return {example.line: name for name, part in parts.items() for example in part}


@pytest.mark.parametrize(
    ("count", "validation", "holdout", "sizes"),
    [
        (100, 0.1, 0.05, (85, 10, 5)),
        (100, 0.0, 0.0, (100, 0, 0)),
        (100, 0.0, 0.2, (80, 0, 20)),
        (100, 0.5, 0.5, (1, 50, 49)),
        (3, 0.1, 0.1, (1, 1, 1)),
        (2, 0.1, 0.1, (1, 1, 0)),
        (1, 0.5, 0.5, (1, 0, 0)),
        (0, 0.5, 0.5, (0, 0, 0)),
    ],
)
def test_fractions_are_honoured_and_training_is_never_empty(
    count: int, validation: float, holdout: float, sizes: tuple[int, int, int]
) -> None:
    split = split_examples(DIFFERENT[:count], validation_fraction=validation, holdout_fraction=holdout, seed=1)
    assert (len(split.training), len(split.validation), len(split.holdout)) == sizes
    assert sorted(side_of(split)) == list(range(1, count + 1))


def test_each_part_keeps_the_order_of_the_file() -> None:
    split = split_examples(DIFFERENT, validation_fraction=0.3, holdout_fraction=0.3, seed=4)
    for part in (split.training, split.validation, split.holdout):
        assert [example.line for example in part] == sorted(example.line for example in part)


def test_the_seed_decides_which() -> None:
    splits = [split_examples(DIFFERENT, validation_fraction=0.2, seed=seed) for seed in (1, 1, 2)]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2]


def test_a_holdout_leaves_the_validation_rows_what_they_were() -> None:
    without = split_examples(DIFFERENT, validation_fraction=0.2, seed=3)
    with_one = split_examples(DIFFERENT, validation_fraction=0.2, holdout_fraction=0.2, seed=3)
    assert with_one.validation == without.validation


def test_the_split_is_the_same_under_every_hash_seed() -> None:
    program = (
        "from tests.training.data.test_splits import DIFFERENT, split_examples;"
        "print([row.line for row in split_examples(DIFFERENT, validation_fraction=0.2, seed=5).validation])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    assert printed.pop().count(",") == 19


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("the same prompt", lambda line: [chat(line + k, "Tell me a joke!", words(line + k)) for k in range(4)]),
        ("prompts that differ in case", lambda line: [chat(line, "Hi  THERE", "x"), chat(line + 1, "hi there", "y z")]),
        (
            "nearly the same text",
            lambda line: [chat(line + k, f"{FILLER} {FILLER[::-1]} {'ab'[k]}", "fine, so be it") for k in range(2)],
        ),
        (
            "preferences on one prompt",
            lambda line: [preference(line + k, "Which one?", words(line + k), words(-line - k)) for k in range(4)],
        ),
        (
            "prompt and completion",
            lambda line: [Example(line + k, prompt="Q: why?\nA:", completion=words(line + k)) for k in range(3)],
        ),
        ("plain texts", lambda line: [Example(line + k, text=f"{FILLER} {FILLER[::-1]} {'ab'[k]}") for k in range(2)]),
    ],
)
@pytest.mark.parametrize("seed", range(6))
def test_similar_rows_stay_together(name: str, group: object, seed: int) -> None:
    assert callable(group)
    similar = group(1000)
    split = split_examples([*similar, *DIFFERENT[:8]], validation_fraction=0.4, holdout_fraction=0.3, seed=seed)
    sides = side_of(split)
    assert len({sides[example.line] for example in similar}) == 1, name


def test_a_long_system_message_does_not_make_all_rows_alike() -> None:
    rows = [chat(line, words(line), words(-line), system=FILLER * 10) for line in range(20)]
    assert len(split_examples(rows, validation_fraction=0.5, seed=1).validation) == 10


def test_without_near_duplicates_only_equal_rows_stay_together() -> None:
    rows = [chat(line, f"{FILLER} {line}", f"{FILLER} {line}") for line in range(40)]
    assert split_examples(rows, validation_fraction=0.25, seed=1).validation == []
    apart = split_examples(rows, validation_fraction=0.25, seed=1, near_duplicates=False)
    assert len(apart.validation) == 10


def test_one_large_cluster_is_trained_on_and_the_others_are_measured() -> None:
    rows = [chat(line, "the same", words(line)) for line in range(90)] + [chat(99, "another", "one")]
    split = split_examples(rows, validation_fraction=0.5, seed=1)
    assert [example.line for example in split.validation] == [99]


def test_a_splitter_fed_row_by_row_says_the_same() -> None:
    splitter = Splitter()
    for example in DIFFERENT:
        splitter.add(example)
    sides = splitter.assign_sides(0.2, 0.1, seed=6)
    split = split_examples(DIFFERENT, validation_fraction=0.2, holdout_fraction=0.1, seed=6)
    names = ("training", "validation", "holdout")
    assert [names[side] for side in sides] == [side_of(split)[example.line] for example in DIFFERENT]


def leaks(training: list[Example], validation: list[Example]) -> list[tuple[int | None, str]]:
    try:
        refuse_leakage(training, validation, training_file=Path("a/train.jsonl"), validation_file=Path("b/valid.jsonl"))
    except DataError as error:
        return [(fault.line, fault.reason) for fault in error.faults]
    return []


def test_files_without_a_common_row_are_let_through() -> None:
    assert leaks(DIFFERENT[:50], DIFFERENT[50:]) == []


def test_parts_of_a_split_never_leak() -> None:
    rows = DIFFERENT[:30] + [chat(500 + line, words(line), words(600 + line)) for line in range(30)]
    split = split_examples(rows, validation_fraction=0.3, seed=8)
    assert split.validation
    assert leaks(split.training, split.validation) == []


def test_every_shared_row_is_named_with_both_lines() -> None:
    long = f"{FILLER} {FILLER[::-1]}"
    training = [chat(3, "Same question?", "one"), chat(4, long, "two"), chat(5, "Equal?", "yes"), chat(6, "z", "w")]
    validation = [
        chat(11, "same  question?", words(1)),
        chat(12, f"{long} x", "two"),
        chat(13, "Equal?", "yes"),
        chat(14, "unlike", "all of them"),
    ]
    found = leaks(training, validation)
    assert [line for line, _ in found] == [11, 12, 13]
    assert found[0][1].startswith("its prompt is the same as line 3 of train.jsonl")
    assert found[1][1].startswith("it is nearly the same as line 4 of train.jsonl")
    assert found[2][1].startswith("it is the same as line 5 of train.jsonl")


def test_a_row_that_leaks_often_names_some_lines_and_counts_the_rest() -> None:
    found = leaks([chat(line, "Same?", words(line)) for line in range(10)], [chat(1, "Same?", "x y")])
    assert len(found) == 1
    assert "line 0" in found[0][1]
    assert "and 7 more" in found[0][1]


def test_leaking_validation_rows_can_be_left_out_instead() -> None:
    training = DIFFERENT[:50]
    validation = [*DIFFERENT[48:60], chat(99, "Entirely new?", "Quite so, nothing like it was there before.")]
    kept = remove_leakage(training, validation)
    assert [example.line for example in kept] == [example.line for example in validation[2:]]
