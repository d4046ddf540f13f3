"""The lower half of the leaderboard page: dimension scores, agreement, position bias, style effects, training.

Computes no statistics. The interpretation of α is Krippendorff's (reliable from 0.8, tentative conclusions from 0.667;
Content Analysis, 2004, p. 241).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ui.html.charts.intervals import small_interval
from ui.pages.leaderboard.render import Figures, percent, render_block
from ui.pages.rate.state import DIMENSIONS
from ui.server_client import Model
from ui.words.i18n import Language, text

RELIABLE, TENTATIVE = 0.8, 0.667
"""Krippendorff's thresholds."""
FEWEST_ITEMS = 10
"""With fewer items, α is shown without an interpretation."""


def dimension_name(name: str, language: Language) -> str:
    """Return the dimension's label; unknown names are returned unchanged."""
    return text(language, f"rate.dimension.{name}") if name in DIMENSIONS else name


def dimensions(board: Figures, language: Language) -> Markup:
    """Return each model's mean scores with intervals, a column per dimension."""
    models = [model for model in board["models"] if model.get("dimensions")]
    given = {name for model in models for name in model["dimensions"]}
    names = [name for name in DIMENSIONS if name in given] + sorted(given - set(DIMENSIONS))
    return render_block(
        "dimensions",
        language,
        confidence=f"{100 * board['confidence']:.0f}",
        head=[text(language, "leaderboard.model"), *(dimension_name(name, language) for name in names)],
        rows=[(model["model"], [_mean(model["dimensions"].get(name)) for name in names]) for model in models],
    )


def _mean(mean: Figures | None) -> tuple[Figures | None, Markup | None]:
    """Return the mean with a chart of its interval, if there is one."""
    if mean is None or mean["mean"] is None or mean["lower"] is None:
        return mean, None
    return mean, small_interval(mean["mean"], mean["lower"], mean["upper"], low=1, high=5)


def quality(board: Figures, language: Language) -> Markup:
    """Return rater agreement and position bias."""
    agreement, bias = board["agreement"], board["position_bias"]
    alphas = {text(language, "leaderboard.verdicts"): agreement["verdict"]}
    alphas |= {dimension_name(name, language): value for name, value in agreement.get("dimensions", {}).items()}
    rate, lower, upper = bias["left_rate"], bias["lower"], bias["upper"]
    values = {"rate": percent(rate), "lower": percent(lower), "upper": percent(upper), "decided": bias["decided"]}
    return render_block(
        "quality",
        language,
        agreement=[(name, alpha, _reading(alpha)) for name, alpha in alphas.items()],
        position="" if rate is None else text(language, "leaderboard.position_rate", **values),
        interval="" if rate is None or lower is None else small_interval(rate, lower, upper, low=0, high=1),
        is_biased=lower is not None and not lower <= 0.5 <= upper,
    )


def _reading(value: Figures) -> str:
    alpha = value["alpha"]
    if alpha is None or value["items"] < FEWEST_ITEMS:
        return "none"
    return "high" if alpha >= RELIABLE else "middling" if alpha >= TENTATIVE else "low"


def style(board: Figures, language: Language) -> Markup:
    """Return the effects of length and formatting, if style control is on."""
    effects = board.get("style")
    return render_block("style", language, effects=effects) if effects else Markup()


def trainable(models: Sequence[Model], board: Figures) -> list[str]:
    """Return the models that can be trained, the likeliest first: tuned models by score, the base, checkpoints. Aliases
    are left out, because their versions are in the list."""
    tuned = {model.name for model in models if model.parent is not None}
    ratings = {row["model"]: row["rating"] for row in board["models"] if row["rating"] is not None}

    def place(model: Model) -> tuple[int, float, bool]:
        kind = 2 if ":ckpt-step-" in model.name else 1 if model.parent is None else 0
        return kind, -ratings.get(model.name, float("-inf")), not model.name.startswith("ft:")

    return [model.name for model in sorted(models, key=place) if model.parent not in tuned]


def training(models: Sequence[str], sending: bool, language: Language, job: Figures | None = None) -> Markup:
    """Return the form that trains on the ratings, and the job that was started."""
    choices, started = [(name, name) for name in models], _started(job) if job else None
    return render_block("training", language, models=choices, sending=sending, started=started)


def _started(job: Figures) -> dict[str, object]:
    origin = (job.get("tuneloop") or {}).get("ratings") or {}
    left_out = origin.get("left_out")
    count = sum(left_out.values()) if isinstance(left_out, Mapping) else left_out
    return {"job": job["id"], "pairs": origin.get("pairs", "?"), "votes": origin.get("votes", "?"), "left_out": count}
