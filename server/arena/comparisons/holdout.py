"""Parts prompts in two for good: some train, the others are held out to measure by. Knows no votes and no files.

A prompt's side follows from its words alone. So it stays where it is however many votes come later, and no adapter was
ever trained on what the next one is measured by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

Part = Literal["train", "holdout"]
HOLDOUT_FRACTION = 0.2
_STEPS = 2**32


def part_of(messages: Sequence[Any], holdout_fraction: float) -> Part:
    """The side of this conversation. Its last user message decides, without case and extra spaces, so that prompts
    that differ in nothing but these, in the system prompt or in earlier turns stay together.

    holdout_fraction: about this share of the prompts is held out, from 0 to below 1.
    """
    asked = [message.get("content") for message in messages if message.get("role") == "user"]
    words = " ".join(str(asked[-1] if asked else list(messages)).casefold().split())
    place = int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big")
    return "holdout" if place < holdout_fraction * _STEPS else "train"
