"""Draws a run's curves as inline SVG in the page's colors. Knows points and texts, nothing of jobs or HTTP.

Series differ by line and marks, not only by color: training is a smooth solid line over its raw values, validation a
dashed line with a dot for each measurement and a star for the best one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from ui.html.charts.scale import Scale, ticks
from ui.html.templates import render

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 18, 40
"""Margins in SVG units, with room for the larger text on phones."""
MOST_POINTS = 400
"""Longer series are thinned out: more points than a screen shows would only be slow."""
SMOOTHING = 20
"""The smooth line is a running median over 1/20 of the points."""

Point = tuple[int, float]


@dataclass(frozen=True)
class Words:
    """The texts of a chart, in the user's language."""

    name: str
    training: str
    validation: str
    step: str
    summary: str
    """The chart in one sentence, for screen readers."""


@dataclass(frozen=True)
class Mark:
    """A finding at a step."""

    step: int
    label: str


def loss_chart(
    training: Sequence[Point], validation: Sequence[Point], marks: Sequence[Mark], words: Words, last_step: int = 0
) -> Markup:
    """Return a chart of training and validation loss over the steps, with findings as vertical lines.

    last_step: of the whole run, so that a growing curve has room; 0: up to the last point.
    """
    smooth = smooth_points(training)
    calm = [value for _, value in (*smooth, *validation)]
    frame = Frame.fit([*training, *validation], _top(calm, [value for _, value in training]), last_step)
    legend = [("curve-training", words.training)] if training else []
    legend += [("curve-validation", words.validation)] if validation else []
    return frame.draw(
        words,
        legend=legend,
        paths=[
            ("curve-raw", frame.path(thin_out(training))),
            ("curve-training", frame.path(thin_out(smooth))),
            ("curve-validation", frame.path(validation)),
        ],
        dots=[(*frame.place(point), f"{words.validation}: {point[1]:.4g} ({point[0]})") for point in validation],
        best=_best(frame, validation) if validation else None,
        marks=[_mark(frame, mark, place) for place, mark in enumerate(marks)],
    )


def small_chart(points: Sequence[Point], words: Words) -> Markup:
    """Return a chart of one series."""
    smooth = smooth_points(points)
    frame = Frame.fit(points, _top([value for _, value in smooth], [value for _, value in points]))
    paths = [("curve-raw", frame.path(thin_out(points))), ("curve-training", frame.path(thin_out(smooth)))]
    return frame.draw(words, paths=paths)


@dataclass(frozen=True)
class Frame:
    """Maps steps and values to places in the drawing."""

    x: Scale
    y: Scale

    @classmethod
    def fit(cls, points: Sequence[Point], high: float, last: int = 0) -> Frame:
        """Return the frame for these points (at least one): from 0, or the lowest value if it is below, to `high`."""
        steps = [step for step, _ in points]
        low = min(0.0, *(value for _, value in points)) if points else 0.0
        across = Scale(min(steps), max(*steps, min(steps) + 1, last), LEFT, WIDTH - RIGHT)
        return cls(across, Scale(low, high if high > low else low + 1.0, HEIGHT - BOTTOM, TOP))

    def place(self, point: Point) -> tuple[str, str]:
        """Return x and y; points above the frame are drawn at its edge."""
        step, value = point
        return f"{self.x.place(step):.1f}", f"{self.y.place(min(value, self.y.high)):.1f}"

    def path(self, points: Sequence[Point]) -> str:
        """Return the SVG path through the points."""
        return " ".join(f"{'L' if at else 'M'}{' '.join(self.place(point))}" for at, point in enumerate(points))

    def draw(
        self,
        words: Words,
        paths: Sequence[tuple[str, str]],
        legend: Sequence[tuple[str, str]] = (),
        dots: Sequence[tuple[str, str, str]] = (),
        best: Mapping[str, str] | None = None,
        marks: Sequence[tuple[str, ...]] = (),
    ) -> Markup:
        """Return the whole chart: axes, numbers, and the given elements."""
        heights = [(self.y.place(value), value) for value in ticks(self.y.low, self.y.high, 5)]
        steps = [step for step in ticks(self.x.low, self.x.high, 6) if step == int(step)]
        return render(
            "html/charts/curve.html",
            words=words,
            width=WIDTH,
            height=HEIGHT,
            left=LEFT,
            right=WIDTH - RIGHT,
            top=TOP,
            bottom=HEIGHT - BOTTOM,
            rows=[(f"{y:.1f}", f"{y + 4:.1f}", f"{value:g}") for y, value in heights],
            columns=[(f"{self.x.place(step):.1f}", f"{step:g}") for step in steps],
            paths=paths,
            legend=legend,
            dots=dots,
            best=best,
            marks=marks,
        )


def smooth_points(points: Sequence[Point]) -> list[Point]:
    """Return the running median; a short series is returned unchanged."""
    half = max(1, len(points) // SMOOTHING // 2) if len(points) > SMOOTHING else 0
    return [
        (step, median(value for _, value in points[max(0, at - half) : at + half + 1]))
        for at, (step, _) in enumerate(points)
    ]


def thin_out(points: Sequence[Point]) -> list[Point]:
    """Return at most about `MOST_POINTS` of the points, including the last one."""
    every = -(-len(points) // MOST_POINTS)
    return [*points[: -1 : max(1, every)], *points[-1:]]


def _top(calm: Sequence[float], raw: Sequence[float]) -> float:
    """Return an upper limit for the smooth lines, so that one outlier doesn't flatten everything else."""
    ordered = sorted(raw)
    most = ordered[int(0.98 * (len(ordered) - 1))] if ordered else 0.0
    return max([*calm, most], default=1.0) * 1.1


def _best(frame: Frame, validation: Sequence[Point]) -> dict[str, str]:
    step, value = min(validation, key=lambda point: point[1])
    x, y = frame.x.place(step), frame.y.place(min(value, frame.y.high))
    anchor, shift = ("end", -10) if x > WIDTH * 0.7 else ("start", 10)
    return {
        "x": f"{x:.1f}",
        "y": f"{y + 6:.1f}",
        "anchor": anchor,
        "word_x": f"{x + shift:.1f}",
        "word_y": f"{max(TOP + 12, y - 12):.1f}",
        "number": f"{value:.3g}",
    }


def _mark(frame: Frame, mark: Mark, place: int) -> tuple[str, ...]:
    x = frame.x.place(min(max(mark.step, frame.x.low), frame.x.high))
    anchor, shift = ("end", -5) if x > WIDTH * 0.6 else ("start", 5)
    return f"{x:.1f}", anchor, f"{x + shift:.1f}", str(TOP + 12 + 18 * place), mark.label
