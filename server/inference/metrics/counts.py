"""What is counted of one model and of one request to it: plain numbers, because it is done for each piece of a stream.

Prometheus' own histograms cost more than all else that is done for such a piece. Bytes stay unparsed: events are
counted, and the engine's own count of tokens is looked for in the last bytes alone.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

FIRST_TOKEN_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
INTER_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LOAD_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OUTCOMES = ("ok", "refused", "unavailable", "cut", "cancelled", "failed", "asked_again")
"""refused: the engine's 4xx. unavailable: nothing of an answer came. asked_again: so it was asked once more.
cut: the answer broke off. cancelled: the caller left. failed: all else."""
_TAIL_BYTES = 2048
_OUTPUT_TOKENS = re.compile(rb'"(?:completion|output)_tokens":\s*(\d{1,9})')
_PROMPT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens":\s*(\d{1,9})')
"""A quotation mark inside a text is escaped, so no model can write these."""


class Spread:
    """A histogram of seconds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum_s = 0.0
        """All of them together."""

    def observe(self, seconds: float, times: int = 1) -> None:
        """So many times, this long."""
        self._counts[bisect_left(self._bounds, seconds)] += times
        self.sum_s += seconds * times

    def buckets(self) -> Sequence[tuple[str, int]]:
        """Upper bound → how many were no longer than that; the last bound is +Inf."""
        return list(zip((*map(str, self._bounds), "+Inf"), accumulate(self._counts), strict=True))


@dataclass
class ModelCounts:
    """All that is counted of one model."""

    outcomes: Counter[str] = field(default_factory=Counter)
    output_tokens: int = 0
    prompt_tokens: int = 0
    evictions: int = 0
    load_failures: int = 0
    parity_failures: int = 0
    in_flight: int = 0
    waiting: int = 0
    first_token: Spread = field(default_factory=lambda: Spread(FIRST_TOKEN_S))
    inter_token: Spread = field(default_factory=lambda: Spread(INTER_TOKEN_S))
    load: Spread = field(default_factory=lambda: Spread(LOAD_S))


class Counted:
    """One request while it runs."""

    def __init__(self, model: ModelCounts) -> None:
        self._model = model
        self._begun_s = self._last_s = time.perf_counter()
        self._has_begun = False
        self._events = 0
        self._before_last = self._last = b""
        self.outcome: str | None = None
        """One of OUTCOMES, as soon as it is known."""
        model.in_flight += 1
        model.waiting += 1

    def take(self, chunk: bytes) -> None:
        """More of the answer has come."""
        now_s = time.perf_counter()
        events = chunk.count(b"\ndata:") + chunk.startswith(b"data:")
        if not self._has_begun:
            self._begin(now_s, is_stream=events > 0)
        elif events:
            self._model.inter_token.observe((now_s - self._last_s) / events, events)
        self._events += events
        self._last_s = now_s
        self._before_last, self._last = self._last, chunk

    def end(self, outcome: str) -> None:
        """It is over; `outcome` is why, where that isn't known yet."""
        model = self._model
        model.in_flight -= 1
        model.waiting -= not self._has_begun
        model.outcomes[self.outcome or outcome] += 1
        tail = (self._before_last[-_TAIL_BYTES:] + self._last)[-_TAIL_BYTES:]
        # Where the engine doesn't say, each event is a token but the one that names the role and the one that ends all.
        model.output_tokens += _last_number(_OUTPUT_TOKENS, tail, max(0, self._events - 2))
        model.prompt_tokens += _last_number(_PROMPT_TOKENS, tail, 0)

    def _begin(self, now_s: float, *, is_stream: bool) -> None:
        self._has_begun = True
        self._model.waiting -= 1
        if is_stream:
            self._model.first_token.observe(now_s - self._begun_s)


def _last_number(pattern: re.Pattern[bytes], tail: bytes, otherwise: int) -> int:
    found = pattern.findall(tail)
    return int(found[-1]) if found else otherwise
