"""Pictures of numbers as inline SVG and HTML: ratings with their intervals, a matrix of win rates, a small interval.

Drawn in the page's own colours through CSS, so that light and dark need no second picture; each says in words what it
shows. Owns geometry and scales. Knows nothing of models, languages or HTTP: words come in, escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_ROW, _TOP, _BOTTOM = 46, 6, 26
"""Heights in CSS pixels; widths are percentages, so that text keeps its size on a phone."""
_MARGIN = 4.0
"""Percent left free on either side, for the outermost ticks' words."""


@dataclass(frozen=True)
class Interval:
    """One row of a plot."""

    name: str
    value: float
    lower: float
    upper: float
    spoken: str
    """The row in words, as a tooltip and for screen readers."""


def interval_plot(rows: Sequence[Interval], *, title: str, description: str, reference: float | None = None) -> str:
    """Each row's value as a dot on its interval, over a common axis; `reference` draws a dashed line across.

    Empty when there are no rows.
    """
    if not rows:
        return ""
    ends = [end for row in rows for end in (row.lower, row.upper)] + ([reference] if reference is not None else [])
    marks = ticks(min(ends), max(ends))
    scale = _Scale(marks[0], marks[-1])
    height = _TOP + _ROW * len(rows) + _BOTTOM
    axis = "".join(_tick(scale, mark, height) for mark in marks)
    line = "" if reference is None else _upright("plot-reference", scale.x(reference), height)
    drawn = "".join(_row(scale, row, _TOP + _ROW * number) for number, row in enumerate(rows))
    spoken = escape(f"{title}. {description}")
    return (
        f'<svg class="plot" width="100%" height="{height}" role="img" aria-label="{spoken}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{axis}{line}{drawn}</svg>"
    )


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that enclose `low` and `high`, about `wanted` of them, in even steps of 1, 2 or 5 · 10ⁿ."""
    span = max(high - low, 1e-9 * max(1.0, abs(high)), 1e-6)
    rough = span / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def x(self, value: float) -> str:
        share = (value - self.low) / (self.high - self.low)
        return f"{_MARGIN + share * (100 - 2 * _MARGIN):.2f}%"


def _tick(scale: _Scale, mark: float, height: int) -> str:
    x = scale.x(mark)
    words = f'<text class="plot-tick" x="{x}" y="{height - 6}" text-anchor="middle">{mark:g}</text>'
    return _upright("plot-grid", x, height) + words


def _upright(kind: str, x: str, height: int) -> str:
    return f'<line class="{kind}" x1="{x}" x2="{x}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'


def _row(scale: _Scale, row: Interval, top: int) -> str:
    low, high, y = scale.x(row.lower), scale.x(row.upper), top + 32
    caps = "".join(f'<line x1="{x}" x2="{x}" y1="{y - 5}" y2="{y + 5}"/>' for x in (low, high))
    return (
        f'<g class="plot-row"><title>{escape(row.spoken)}</title>'
        f'<foreignObject x="0" y="{top}" width="100%" height="22"><div class="plot-name">{escape(row.name)}</div>'
        "</foreignObject>"
        f'<text class="plot-value" x="100%" y="{top + 16}" text-anchor="end">{row.value:.0f}</text>'
        f'<line x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>{caps}'
        f'<circle cx="{scale.x(row.value)}" cy="{y}" r="5.5"/></g>'
    )


def small_interval(value: float, lower: float, upper: float, *, low: float, high: float) -> str:
    """A value on its interval between `low` and `high`, small enough for a cell; the numbers stand beside it."""
    left, middle, right = (2 + 96 * (min(max(one, low), high) - low) / (high - low) for one in (lower, value, upper))
    return (
        '<svg class="plot-small" viewBox="0 0 100 16" aria-hidden="true">'
        '<line class="plot-grid" x1="2" x2="98" y1="8" y2="8"/>'
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="8" y2="8"/><circle cx="{middle:.1f}" cy="8" r="4"/></svg>'
    )


@dataclass(frozen=True)
class Cell:
    """One cell of a heat table."""

    shown: str
    share: float | None
    """From 0 to 1, where 0.5 has no colour; None leaves the cell plain."""
    spoken: str = ""
    """The cell in words, as a tooltip."""


def heat_table(names: Sequence[str], cells: Sequence[Sequence[Cell]], *, caption: str, corner: str) -> str:
    """Rows against columns of the same names; the colour says how far a share is from one half."""
    head = "".join(f'<th scope="col" class="live-name">{escape(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row" class="live-name">{escape(name)}</th>{"".join(map(_heat_cell, row))}</tr>'
        for name, row in zip(names, cells, strict=True)
    )
    return (
        f'<div class="live-scroll" tabindex="0" role="group" aria-label="{escape(caption)}">'
        f'<table class="live-table heat-table"><caption class="live-hidden">{escape(caption)}</caption>'
        f'<thead><tr><th scope="col">{escape(corner)}</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _heat_cell(cell: Cell) -> str:
    if cell.share is None:
        return f'<td class="heat-none">{escape(cell.shown)}</td>'
    side = "heat-more" if cell.share >= 0.5 else "heat-less"
    strength = round(min(1.0, abs(cell.share - 0.5) * 2) * 42)
    return f'<td class="{side}" style="--heat: {strength}%" title="{escape(cell.spoken)}">{escape(cell.shown)}</td>'
