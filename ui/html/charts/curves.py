"""Draws a run's curves as inline SVG in the page's own colours. Knows points and words, nothing of jobs or HTTP.

Series differ by line and marks, not by colour alone: training is a smooth solid line over its raw values, validation a
dashed one with a dot at each measurement, the best of them a star.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 18, 40
"""Margins, in the drawing's own units; room for the larger letters that phones get."""
MOST_POINTS = 400
"""Of a longer series every so-manieth point is drawn: more than a screen shows is only slow."""
SMOOTHING = 20
"""The smooth line is a running median over a twentieth of the points."""

Point = tuple[int, float]


@dataclass(frozen=True)
class Words:
    """What is written into and said of a drawing, in the reader's language."""

    name: str
    training: str
    validation: str
    step: str
    summary: str
    """The whole picture in a sentence, for those who don't see it."""


@dataclass(frozen=True)
class Mark:
    """Something that was seen at a step."""

    step: int
    label: str


def loss_chart(
    training: Sequence[Point], validation: Sequence[Point], marks: Sequence[Mark], words: Words, last_step: int = 0
) -> str:
    """Training and validation over the steps, with what health saw as upright lines.

    last_step: of the whole run, so that a curve that still grows has room; 0: up to the last point.
    """
    smooth = smoothed(training)
    calm = [value for _, value in (*smooth, *validation)]
    frame = Frame.around([*training, *validation], _top(calm, [value for _, value in training]), last_step)
    parts = [
        frame.grid(words.step),
        _path(frame, thinned(training), "curve-raw"),
        _path(frame, thinned(smooth), "curve-training"),
        _path(frame, validation, "curve-validation"),
        *(_dot(frame, point, words.validation) for point in validation),
        _best(frame, validation),
        *(_mark(frame, mark, place) for place, mark in enumerate(marks)),
    ]
    legend = [("curve-training", words.training)] if training else []
    legend += [("curve-validation", words.validation)] if validation else []
    return _figure(words, legend, "".join(parts))


def small_chart(points: Sequence[Point], words: Words) -> str:
    """One series alone."""
    smooth = smoothed(points)
    frame = Frame.around(points, _top([value for _, value in smooth], [value for _, value in points]))
    drawn = _path(frame, thinned(points), "curve-raw") + _path(frame, thinned(smooth), "curve-training")
    return _figure(words, [], frame.grid(words.step) + drawn)


@dataclass(frozen=True)
class Frame:
    """From steps and values to places in the drawing."""

    first: int
    last: int
    low: float
    high: float

    @classmethod
    def around(cls, points: Sequence[Point], high: float, last: int = 0) -> Frame:
        """The frame for these points, at least one; from 0, or below where values are below, up to `high`."""
        steps = [step for step, _ in points]
        low = min(0.0, *(value for _, value in points)) if points else 0.0
        return cls(min(steps), max(*steps, min(steps) + 1, last), low, high if high > low else low + 1.0)

    def x(self, step: float) -> float:
        """Across."""
        return LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Down; what is above the frame is drawn at its edge."""
        share = (min(value, self.high) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def grid(self, step_word: str) -> str:
        """Lines and numbers."""
        rows = "".join(
            f'<line class="curve-grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.y(value):.1f}" '
            f'y2="{self.y(value):.1f}"/>'
            f'<text class="curve-y" x="{LEFT - 8}" y="{self.y(value) + 4:.1f}">{value:g}</text>'
            for value in ticks(self.low, self.high, 5)
        )
        columns = "".join(
            f'<text class="curve-x" x="{self.x(step):.1f}" y="{HEIGHT - 16}">{step:g}</text>'
            for step in ticks(self.first, self.last, 6)
            if step == int(step)
        )
        return (
            f'{rows}{columns}<text class="curve-word" x="{WIDTH - RIGHT}" y="{HEIGHT - 5}">{escape(step_word)}</text>'
        )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from `low` to `high`, some `about` of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(nice * power for nice in (1, 2, 2.5, 5, 10) if nice * power >= rough * 0.999)
    first, last = math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9)
    return [float(f"{number * width:.10g}") for number in range(first, last + 1)]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """The running median; a short series as it is."""
    half = max(1, len(points) // SMOOTHING // 2) if len(points) > SMOOTHING else 0
    return [
        (step, median(value for _, value in points[max(0, at - half) : at + half + 1]))
        for at, (step, _) in enumerate(points)
    ]


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most some `MOST_POINTS` of them, the last one among them."""
    every = -(-len(points) // MOST_POINTS)
    return [*points[: -1 : max(1, every)], *points[-1:]]


def _top(calm: Sequence[float], raw: Sequence[float]) -> float:
    """Above what the smooth lines need: one wild batch must not flatten all the rest."""
    ordered = sorted(raw)
    most = ordered[int(0.98 * (len(ordered) - 1))] if ordered else 0.0
    return max([*calm, most], default=1.0) * 1.1


def _path(frame: Frame, points: Sequence[Point], kind: str) -> str:
    if not points:
        return ""
    way = " ".join(f"{'M' if not at else 'L'}{frame.x(s):.1f} {frame.y(v):.1f}" for at, (s, v) in enumerate(points))
    return f'<path class="{kind}" d="{way}"/>'


def _dot(frame: Frame, point: Point, name: str) -> str:
    step, value = point
    told = escape(f"{name}: {value:.4g} ({step})")
    return (
        f'<circle class="curve-dot" cx="{frame.x(step):.1f}" cy="{frame.y(value):.1f}" r="4"><title>{told}</title>'
        "</circle>"
    )


def _best(frame: Frame, validation: Sequence[Point]) -> str:
    if not validation:
        return ""
    step, value = min(validation, key=lambda point: point[1])
    x, y = frame.x(step), frame.y(value)
    anchor = "end" if x > WIDTH * 0.7 else "start"
    return (
        f'<text class="curve-star" x="{x:.1f}" y="{y + 6:.1f}">★</text>'
        f'<text class="curve-best" text-anchor="{anchor}" x="{x + (-10 if anchor == "end" else 10):.1f}" '
        f'y="{max(TOP + 12, y - 12):.1f}">{value:.3g}</text>'
    )


def _mark(frame: Frame, mark: Mark, place: int) -> str:
    x = frame.x(min(max(mark.step, frame.first), frame.last))
    anchor, shift = ("end", -5) if x > WIDTH * 0.6 else ("start", 5)
    return (
        f'<line class="curve-mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="curve-marked" text-anchor="{anchor}" x="{x + shift:.1f}" y="{TOP + 12 + 18 * place}">'
        f"{escape(mark.label)}</text>"
    )


def _figure(words: Words, legend: Sequence[tuple[str, str]], drawn: str) -> str:
    items = "".join(
        f'<li><svg class="curve-key" viewBox="0 0 30 10" aria-hidden="true"><path class="{kind}" d="M0 5 L30 5"/>'
        f"{'<circle class=curve-dot cx=15 cy=5 r=4 />' if kind == 'curve-validation' else ''}</svg> {escape(word)}</li>"
        for kind, word in legend
    )
    return (
        f'<figure class="curve"><figcaption>{escape(words.name)}{f"<ul>{items}</ul>" if items else ""}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words.summary)}">{drawn}</svg></figure>'
    )
