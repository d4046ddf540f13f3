"""Splits prompts permanently into training and holdout.

A prompt's part follows from its text alone, so it never changes as ratings are added, and no adapter is trained on what
a later one is evaluated on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

Part = Literal["train", "holdout"]
HOLDOUT_FRACTION = 0.2
_STEPS = 2**32


def assign_part(messages: Sequence[Any], holdout_fraction: float) -> Part:
    """Return the part of this conversation. It depends on the last user message, ignoring case and extra spaces, so
    that prompts that differ only in these, in the system prompt or in earlier turns stay together.

    holdout_fraction: share of the prompts that is held out, approximately; from 0 to below 1.
    """
    questions = [message.get("content") for message in messages if message.get("role") == "user"]
    words = " ".join(str(questions[-1] if questions else list(messages)).casefold().split())
    place = int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big")
    return "holdout" if place < holdout_fraction * _STEPS else "train"
