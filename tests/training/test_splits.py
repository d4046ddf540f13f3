"""The split into training and validation examples."""

from __future__ import annotations

import pytest

from training.examples import Example
from training.splits import split_examples

EXAMPLES = [Example(line, prompt="p", completion="c") for line in range(1, 101)]


@pytest.mark.parametrize(("count", "fraction", "held_back"), [(100, 0.1, 10), (100, 0.0, 0), (3, 0.1, 1), (1, 0.5, 0)])
def test_the_fraction_is_held_back(count: int, fraction: float, held_back: int) -> None:
    training, validation = split_examples(EXAMPLES[:count], fraction, seed=1)
    assert (len(training), len(validation)) == (count - held_back, held_back)
    assert sorted(example.line for example in training + validation) == list(range(1, count + 1))


def test_the_seed_decides_which() -> None:
    assert split_examples(EXAMPLES, 0.2, 1) == split_examples(EXAMPLES, 0.2, 1)
    assert split_examples(EXAMPLES, 0.2, 1) != split_examples(EXAMPLES, 0.2, 2)
