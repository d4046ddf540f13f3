"""Scales of charts: map a value to its place in the drawing, and choose round numbers for an axis.

Knows nothing of HTML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` linearly to places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return the value's place."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, steps: int, *, enclose: bool = False) -> list[float]:
    """Return about `steps` round numbers at equal distances.

    They are between `low` and `high`, in steps of 1, 2, 2.5 or 5 · 10ⁿ. With `enclose` they enclose both, at least two,
    in steps of 1, 2 or 5 · 10ⁿ.
    """
    rough = max(high - low, 1e-9 * abs(high), 1e-12) / steps
    power = 10.0 ** math.floor(math.log10(rough))
    factors = (1, 2, 5, 10) if enclose else (1, 2, 2.5, 5, 10)
    step = next(factor * power for factor in factors if factor * power >= rough * 0.999)
    if enclose:
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
    else:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]
