"""Draws a histogram as inline SVG in the page's colors. Knows nothing of any page."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ui.html.charts.scale import Scale
from ui.html.templates import render

WIDTH, HEIGHT, FOOT, HEAD = 480, 190, 30, 24
"""In SVG units; the style sheet scales it to the page."""


def histogram(bars: Sequence[tuple[int, int]], name: str, labels: Sequence[str]) -> Markup:
    """Return a histogram of (upper bound, count) with the title `name`.

    labels: for each bar, its text for screen readers and the tooltip.
    """
    step = WIDTH / len(bars)
    scale = Scale(0, max(count for _, count in bars), 0, HEIGHT - FOOT - HEAD)
    drawn = [
        _bar(place, step, bound, count, max(2.0, scale.place(count)) if count else 0.0) | {"label": labels[place]}
        for place, (bound, count) in enumerate(bars)
    ]
    return render("html/charts/histogram.html", name=name, bars=drawn, width=WIDTH, height=HEIGHT, foot=HEIGHT - FOOT)


def _bar(place: int, step: float, bound: int, count: int, height: float) -> dict[str, object]:
    return {
        "left": f"{(place + 0.1) * step:.1f}",
        "middle": f"{(place + 0.5) * step:.1f}",
        "width": f"{step * 0.8:.1f}",
        "top": HEIGHT - FOOT - height,
        "height": f"{height:.1f}",
        "count": count,
        "bound": _short(bound),
    }


def _short(bound: int) -> str:
    """Return a power of two in short: 2048 as 2k, 1048576 as 1M."""
    if bound >= 1 << 20:
        return f"{bound >> 20}M"
    return f"{bound >> 10}k" if bound >= 1 << 10 else str(bound)
