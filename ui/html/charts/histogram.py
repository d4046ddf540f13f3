"""Draws how long examples are as an inline SVG of bars, in the page's own colours. Knows nothing of any page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, FOOT, HEAD = 480, 190, 30, 24
"""In the drawing's own units; the style sheet scales it to the page."""


def histogram(bars: Sequence[tuple[int, int]], name: str, told: Sequence[str]) -> str:
    """The bars of (upper bound, count) under `name`.

    told: for each bar, in words, what a screen reader says and the mouse shows.
    """
    most = max(count for _, count in bars)
    step = WIDTH / len(bars)
    drawn = "".join(
        _bar(place, step, bound, count / most, count, told[place]) for place, (bound, count) in enumerate(bars)
    )
    label = escape(f"{name}: {'; '.join(told)}")
    return (
        f'<figure class="data-histogram"><figcaption>{escape(name)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{drawn}'
        f'<line class="data-axis" x1="0" y1="{HEIGHT - FOOT}" x2="{WIDTH}" y2="{HEIGHT - FOOT}"/></svg></figure>'
    )


def _bar(place: int, step: float, bound: int, share: float, count: int, told: str) -> str:
    room = HEIGHT - FOOT - HEAD
    height = max(2.0, share * room) if count else 0.0
    left, middle, top = place * step + step * 0.1, (place + 0.5) * step, HEIGHT - FOOT - height
    number = f'<text x="{middle:.1f}" y="{top - 6:.1f}">{count:,}</text>' if count else ""
    return (
        f'<g><title>{escape(told)}</title><rect class="data-bar" x="{left:.1f}" y="{top:.1f}" '
        f'width="{step * 0.8:.1f}" height="{height:.1f}" rx="3"/>{number}'
        f'<text class="data-bound" x="{middle:.1f}" y="{HEIGHT - 9}">≤ {_short(bound)}</text></g>'
    )


def _short(bound: int) -> str:
    """Bounds are powers of two: 2048 as 2k, 1048576 as 1M."""
    if bound >= 1 << 20:
        return f"{bound >> 20}M"
    return f"{bound >> 10}k" if bound >= 1 << 10 else str(bound)
