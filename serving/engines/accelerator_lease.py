"""A lease of the accelerator from an engine to a training: how the engine frees it, and what requests get meanwhile."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from serving.engines.admission import Refusal

_UNKNOWN_S = 60.0
"""Retry-After where the duration is unknown."""


@dataclass(frozen=True)
class AcceleratorLease:
    """One lease, from the request for it until the engine has the accelerator back."""

    mode: Literal["sleep", "stop"]
    """`sleep`: vLLM moves its weights into main memory and drops its cache. `stop`: it ends."""
    remaining_s: Callable[[], float | None]
    """Returns the seconds that the training is expected to take from now on; None if unknown."""

    def refusal(self, return_s: float, wait_s: float) -> Refusal:
        """Return the refusal for a request that comes now.

        return_s: how long the engine takes to come back, in seconds. wait_s: how long a request may wait for that.
        """
        remaining_s = self.remaining_s()
        if remaining_s is None:
            return Refusal(
                "A fine-tuning job is using the accelerator, and its remaining time isn't known yet. Try again later.",
                _UNKNOWN_S,
                worth_waiting=False,
            )
        back_in_s = max(1.0, remaining_s + return_s)
        minutes = math.ceil(back_in_s / 60)
        message = (
            f"A fine-tuning job is using the accelerator for about {minutes} more "
            f"minute{'s' if minutes > 1 else ''}. Try again then."
        )
        return Refusal(message, back_in_s, worth_waiting=back_in_s <= wait_s)
