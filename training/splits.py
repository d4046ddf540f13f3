"""Which examples are trained on and which are only measured. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Sequence

from training.examples import Example


def split_examples(examples: Sequence[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(training, validation): a seeded choice of `fraction` of the examples is held back, both in their old order.

    With a fraction above 0 at least one is held back, unless that would leave nothing to train on.
    """
    if fraction == 0 or len(examples) < 2:
        return list(examples), []
    count = min(max(1, round(fraction * len(examples))), len(examples) - 1)
    held_back = set(random.Random(seed).sample(range(len(examples)), count))
    training = [example for place, example in enumerate(examples) if place not in held_back]
    return training, [examples[place] for place in sorted(held_back)]
