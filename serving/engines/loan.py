"""The accelerator, lent by an engine to a training: how the engine makes room, and what is told to who asks meanwhile.

It refuses to know who trains.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from serving.engines.admission import Refusal

_UNKNOWN_S = 60.0
"""When to ask again where nobody knows how long it takes."""


@dataclass(frozen=True)
class Loan:
    """One loan, from the request for it until it is taken back."""

    how: Literal["sleep", "stop"]
    """`sleep`: vLLM moves its weights into the machine's memory and drops its cache. `stop`: it ends."""
    remaining_s: Callable[[], float | None]
    """Seconds that the training is expected to take from now on; None while that isn't known."""

    def refusal(self, return_s: float, wait_s: float) -> Refusal:
        """What is told to a request now.

        return_s: what the engine takes to come back, in seconds. wait_s: how long a request may wait for that.
        """
        remaining_s = self.remaining_s()
        if remaining_s is None:
            return Refusal(
                "A fine-tuning job has the accelerator; how long it takes isn't known yet. Try again later.",
                _UNKNOWN_S,
                may_pass=False,
            )
        back_in_s = max(1.0, remaining_s + return_s)
        minutes = math.ceil(back_in_s / 60)
        message = (
            f"A fine-tuning job has the accelerator for about {minutes} more minute{'s' if minutes > 1 else ''}. "
            "Try again then."
        )
        return Refusal(message, back_in_s, may_pass=back_in_s <= wait_s)
