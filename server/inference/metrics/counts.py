"""Counters of one model and of one request to it: plain numbers, because they are updated for each chunk of a stream.

Prometheus' own histograms cost more than everything else that is done per chunk. Bytes stay unparsed: events are
counted, and the engine's token counts are searched for only in the last bytes.
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
"""refused: the engine's 4xx. unavailable: no answer at all. asked_again: the request was therefore sent once more.
cut: the answer broke off. cancelled: the client disconnected. failed: anything else."""
_TAIL_BYTES = 2048
_OUTPUT_TOKENS = re.compile(rb'"(?:completion|output)_tokens":\s*(\d{1,9})')
_PROMPT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens":\s*(\d{1,9})')
"""Quotation marks within a text are escaped, so a model's output can't match these."""


class Histogram:
    """A histogram of seconds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum_s = 0.0
        """Sum of all observations."""

    def observe(self, seconds: float, count: int = 1) -> None:
        """Add `count` observations of this duration."""
        self._counts[bisect_left(self._bounds, seconds)] += count
        self.sum_s += seconds * count

    def list_buckets(self) -> Sequence[tuple[str, int]]:
        """Return (upper bound, number of observations up to it); the last bound is +Inf."""
        return list(zip((*map(str, self._bounds), "+Inf"), accumulate(self._counts), strict=True))


@dataclass
class ModelCounts:
    """The counters of one model."""

    outcomes: Counter[str] = field(default_factory=Counter)
    output_tokens: int = 0
    prompt_tokens: int = 0
    evictions: int = 0
    load_failures: int = 0
    parity_failures: int = 0
    in_flight: int = 0
    waiting: int = 0
    first_token: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN_S))
    inter_token: Histogram = field(default_factory=lambda: Histogram(INTER_TOKEN_S))
    load: Histogram = field(default_factory=lambda: Histogram(LOAD_S))


class RequestCounts:
    """The counters of one running request."""

    def __init__(self, model: ModelCounts) -> None:
        self._model = model
        self._started_s = self._last_s = time.perf_counter()
        self._has_begun = False
        self._events = 0
        self._before_last = self._last = b""
        self.outcome: str | None = None
        """One of OUTCOMES, once it is known."""
        model.in_flight += 1
        model.waiting += 1

    def add_chunk(self, chunk: bytes) -> None:
        """Count one chunk of the answer."""
        now_s = time.perf_counter()
        events = chunk.count(b"\ndata:") + chunk.startswith(b"data:")
        if not self._has_begun:
            self._record_first_chunk(now_s, is_stream=events > 0)
        elif events:
            self._model.inter_token.observe((now_s - self._last_s) / events, events)
        self._events += events
        self._last_s = now_s
        self._before_last, self._last = self._last, chunk

    def finish(self, outcome: str) -> None:
        """Count the end of the request; `outcome` is used if none is known yet."""
        model = self._model
        model.in_flight -= 1
        model.waiting -= not self._has_begun
        model.outcomes[self.outcome or outcome] += 1
        tail = (self._before_last[-_TAIL_BYTES:] + self._last)[-_TAIL_BYTES:]
        # Without the engine's count, each event is a token, except the first (the role) and the last (the end).
        model.output_tokens += _find_last_number(_OUTPUT_TOKENS, tail, max(0, self._events - 2))
        model.prompt_tokens += _find_last_number(_PROMPT_TOKENS, tail, 0)

    def _record_first_chunk(self, now_s: float, *, is_stream: bool) -> None:
        self._has_begun = True
        self._model.waiting -= 1
        if is_stream:
            self._model.first_token.observe(now_s - self._started_s)


def _find_last_number(pattern: re.Pattern[bytes], tail: bytes, otherwise: int) -> int:
    found = pattern.findall(tail)
    return int(found[-1]) if found else otherwise
