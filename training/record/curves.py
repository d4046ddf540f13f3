"""Draws a run's curves into one picture: losses, learning rate, gradient, speed, and the margin of a preference run."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from adapter_format.disk import write_aside
from training.record.health.findings import Finding
from training.record.progress import ProgressEvent

CURVES_FILE = "curves.png"
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#d55e00", "#009e73", "#b2182b", "#8a8a8a"
"""Distinguishable with colour blindness (Okabe and Ito's palette, "Color Universal Design"), and in black and white."""
WIDTH_IN, ROW_IN, LINE_IN, DPI = 10.0, 2.3, 0.18, 150
COLUMNS = 130
SMOOTHING = 20
"""The smoothed line is a running median over a twentieth of the reports: it follows the trend and ignores outliers."""

Value = Callable[[ProgressEvent], float | None]


def draw_curves(
    events: Sequence[ProgressEvent], path: Path, *, findings: Iterable[Finding] = (), title: str = ""
) -> Path:
    """Draw `events` as a PNG at `path`, by way of a temporary file; return `path`.

    Args:
        findings: of `health`; marked in the loss curve and printed below it.
        title: heading, such as the run's name.
    """
    panels = [panel for panel in _PANELS if _collect_points(events, panel[1])]
    shown = [finding for finding in findings if finding.severity != "info"]
    rows = 2 + (len(panels) + 1) // 2
    words = [line for finding in shown for line in _wrap_text(finding)]
    figure = Figure(figsize=(WIDTH_IN, ROW_IN * rows + LINE_IN * len(words)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, 2)
    _draw_loss(figure.add_subplot(grid[:2, :]), events, shown)
    for position, (label, value, colour) in enumerate(panels):
        last_alone = position == len(panels) - 1 and position % 2 == 0
        axes = figure.add_subplot(grid[2 + position // 2, slice(None) if last_alone else position % 2])
        _draw_panel(axes, label, _collect_points(events, value), colour)
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold")
    if words:
        figure.supxlabel("\n".join(words), x=0.01, ha="left", fontsize=9, color=RED)
    return _save(figure, path)


def _learning_rate(event: ProgressEvent) -> float | None:
    return event.learning_rate


def _grad_norm(event: ProgressEvent) -> float | None:
    return event.grad_norm


def _tokens_per_second(event: ProgressEvent) -> float | None:
    return event.tokens_per_second


def _reward_margin(event: ProgressEvent) -> float | None:
    return event.reward_margin


def _reward_accuracy(event: ProgressEvent) -> float | None:
    return event.reward_accuracy


_PANELS: tuple[tuple[str, Value, str], ...] = (
    ("reward margin", _reward_margin, GREEN),
    ("reward accuracy", _reward_accuracy, GREEN),
    ("learning rate", _learning_rate, BLUE),
    ("gradient norm", _grad_norm, BLUE),
    ("tokens per second", _tokens_per_second, BLUE),
)


def _draw_loss(axes: Axes, events: Sequence[ProgressEvent], findings: Sequence[Finding]) -> None:
    train = _collect_points(events, lambda event: event.train_loss if event.type == "step" else None)
    valid = _collect_points(events, lambda event: event.valid_loss)
    if train:
        axes.plot(*_split_columns(train), color=BLUE, alpha=0.3, linewidth=0.9)
        axes.plot(*_split_columns(_smooth(train)), color=BLUE, linewidth=2.0, label="training")
    if valid:
        axes.plot(*_split_columns(valid), color=ORANGE, marker="o", markersize=5, linewidth=1.5, label="validation")
        _mark_best(axes, valid)
    _mark_findings(axes, findings)
    _style_axes(axes, "loss (nats per token)" if not _collect_points(events, _reward_margin) else "loss")
    axes.set_xlabel("optimizer step", fontsize=9)
    if train or valid:
        _set_limits(axes, [loss for _, loss in (*_smooth(train), *valid)], [loss for _, loss in train])
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "no reports yet", transform=axes.transAxes, ha="center", color=GREY)


def _mark_best(axes: Axes, valid: Sequence[tuple[int, float]]) -> None:
    step, loss = min(valid, key=lambda point: point[1])
    axes.plot([step], [loss], "*", color=ORANGE, markersize=15, markeredgecolor="white", zorder=5)
    leftmost, rightmost = valid[0][0], valid[-1][0]
    on_the_right = step > (leftmost + rightmost) / 2
    axes.annotate(
        f"best {loss:.3f}, step {step}", (step, loss), xytext=(-10 if on_the_right else 10, 12), fontsize=9,
        textcoords="offset points", ha="right" if on_the_right else "left", color=ORANGE, fontweight="bold", zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
    )  # fmt: skip


def _mark_findings(axes: Axes, findings: Sequence[Finding]) -> None:
    """Draw a line at each finding; its text is printed below the picture."""
    for position, finding in enumerate(findings):
        axes.axvline(finding.step, color=RED, linestyle="--", linewidth=1.0, alpha=0.8)
        on_the_right = finding.step > 0.6 * axes.get_xlim()[1]
        axes.annotate(
            f"{finding.code.replace('_', ' ')}, step {finding.step}", (finding.step, 0.93 - 0.08 * position),
            xycoords=("data", "axes fraction"), xytext=(-5 if on_the_right else 5, 0), textcoords="offset points",
            color=RED, fontsize=9, fontweight="bold", ha="right" if on_the_right else "left",
        )  # fmt: skip


def _wrap_text(finding: Finding) -> list[str]:
    return textwrap.wrap(f"{finding.message} {finding.remedy}".replace("`", ""), COLUMNS)


def _draw_panel(axes: Axes, label: str, points: Sequence[tuple[int, float]], colour: str) -> None:
    if label == "learning rate":
        axes.plot(*_split_columns(points), color=colour, linewidth=1.6)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylim(bottom=0)
    else:
        axes.plot(*_split_columns(points), color=colour, alpha=0.3, linewidth=0.9)
        axes.plot(*_split_columns(_smooth(points)), color=colour, linewidth=1.6)
    if label == "tokens per second":
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_ylim(bottom=0)
    if label == "reward accuracy":
        axes.set_ylim(-0.03, 1.03)
        axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1.0)
    _style_axes(axes, label)


def _style_axes(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _set_limits(axes: Axes, calm: Sequence[float], raw: Sequence[float]) -> None:
    """Scale from zero to what the smoothed lines need: one outlier must not flatten all the rest."""
    ordered = sorted(raw)
    most = ordered[int(0.98 * (len(ordered) - 1))] if ordered else 0.0
    top = max([*calm, most])
    axes.set_ylim(0, top * 1.12 if top > 0 else 1.0)


def _collect_points(events: Sequence[ProgressEvent], value: Value) -> list[tuple[int, float]]:
    """Return (step, value) in order; if a resumed run repeated a step, the last value."""
    points = {event.step: found for event in events if event.step is not None and (found := value(event)) is not None}
    return sorted(points.items())


def _smooth(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    half = max(1, len(points) // SMOOTHING // 2) if len(points) > SMOOTHING else 0
    return [
        (step, median(value for _, value in points[max(0, at - half) : at + half + 1]))
        for at, (step, _) in enumerate(points)
    ]


def _split_columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def _save(figure: Figure, path: Path) -> Path:
    with write_aside(path) as file:
        figure.savefig(file, format="png", dpi=DPI)
    return path
