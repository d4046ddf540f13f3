"""Charts as inline SVG and HTML: scores with intervals, a matrix of win rates, a small interval.

Colors come from the page's CSS, so the same chart works in light and dark; each has a text alternative.
Owns the geometry. Knows nothing of models, languages or HTTP: texts are passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ui.html.charts.scale import Scale, ticks
from ui.html.templates import render

_ROW, _TOP, _BOTTOM = 46, 6, 26
"""Heights in CSS pixels. Widths are percentages, so that text keeps its size on a phone."""
_MARGIN = 4.0
"""Percent left free on both sides, for the labels of the outermost ticks."""


@dataclass(frozen=True)
class Interval:
    """One row of a plot."""

    name: str
    value: float
    lower: float
    upper: float
    spoken: str
    """The row as text, for tooltip and screen readers."""


def interval_plot(rows: Sequence[Interval], *, title: str, description: str, reference: float | None = None) -> Markup:
    """Return a chart with each row's value as a dot on its interval; `reference` adds a dashed line.

    It is empty if there are no rows.
    """
    if not rows:
        return Markup()
    ends = [end for row in rows for end in (row.lower, row.upper)] + ([reference] if reference is not None else [])
    marks = ticks(min(ends), max(ends), 4, enclose=True)
    scale = Scale(marks[0], marks[-1], _MARGIN, 100 - _MARGIN)

    def x(value: float) -> str:
        return f"{scale.place(value):.2f}%"

    height = _TOP + _ROW * len(rows) + _BOTTOM
    return render(
        "html/charts/interval_plot.html",
        title=title,
        description=description,
        height=height,
        top=_TOP,
        bottom=height - _BOTTOM,
        marks=[(x(mark), f"{mark:g}") for mark in marks],
        reference=None if reference is None else x(reference),
        rows=[(row, _TOP + _ROW * n, x(row.lower), x(row.value), x(row.upper)) for n, row in enumerate(rows)],
    )


def small_interval(value: float, lower: float, upper: float, *, low: float, high: float) -> Markup:
    """Return a small chart of a value on its interval between `low` and `high`, for a table cell with the numbers."""
    scale = Scale(low, high, 2, 98)
    left, middle, right = (f"{scale.place(min(max(one, low), high)):.1f}" for one in (lower, value, upper))
    return render("html/charts/small_interval.html", left=left, middle=middle, right=right)


@dataclass(frozen=True)
class Cell:
    """One cell of a heat table."""

    shown: str
    share: float | None
    """From 0 to 1, where 0.5 has no color; with None the cell is plain."""
    spoken: str = ""
    """The cell as text, for the tooltip."""

    @property
    def strength(self) -> int:
        """The color's strength in percent: how far the share is from one half."""
        return round(min(1.0, abs((self.share or 0.0) - 0.5) * 2) * 42)


def heat_table(names: Sequence[str], cells: Sequence[Sequence[Cell]], *, caption: str, corner: str) -> Markup:
    """Return a table of rows and columns with the same names; the color shows how far a share is from one half."""
    rows = list(zip(names, cells, strict=True))
    return render("html/charts/heat_table.html", rows=rows, caption=caption, corner=corner)
