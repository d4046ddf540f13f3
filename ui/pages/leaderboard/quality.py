"""The lower half of the leaderboard page: scores, rater agreement, position bias, style effects, training on the votes.

Computes no statistics; the words for α follow Krippendorff's own reading (0.8 reliable, 0.667 the least for tentative
conclusions; Content Analysis, 2004, p. 241).
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
"""Items below which α is shown without a reading."""


def dimension_name(name: str, language: Language) -> str:
    """The dimension's name in words; as it is where it isn't one of ours."""
    return text(language, f"rate.dimension.{name}") if name in DIMENSIONS else name


def dimensions(board: Figures, language: Language) -> Markup:
    """Each model's mean score with its interval, a column for each dimension."""
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
    """The mean with its interval's picture, where there is one."""
    if mean is None or mean["mean"] is None or mean["lower"] is None:
        return mean, None
    return mean, small_interval(mean["mean"], mean["lower"], mean["upper"], low=1, high=5)


def quality(board: Figures, language: Language) -> Markup:
    """How far to trust the rest: agreement between raters, and whether the side matters."""
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
    """What length and formatting are worth, where they are controlled for."""
    effects = board.get("style")
    return render_block("style", language, effects=effects) if effects else Markup()


def trainable(models: Sequence[Model], board: Figures) -> list[str]:
    """What can be trained on, the likeliest first: tuned models by rating, the base, checkpoints. Aliases are left out,
    as what they stand for is there itself."""
    tuned = {model.name for model in models if model.parent is not None}
    ratings = {row["model"]: row["rating"] for row in board["models"] if row["rating"] is not None}

    def place(model: Model) -> tuple[int, float, bool]:
        kind = 2 if ":ckpt-step-" in model.name else 1 if model.parent is None else 0
        return kind, -ratings.get(model.name, float("-inf")), not model.name.startswith("ft:")

    return [model.name for model in sorted(models, key=place) if model.parent not in tuned]


def training(models: Sequence[str], sending: bool, language: Language, job: Figures | None = None) -> Markup:
    """The button that turns the votes into the next adapter, and the job that was started with it."""
    choices, started = [(name, name) for name in models], _started(job) if job else None
    return render_block("training", language, models=choices, sending=sending, started=started)


def _started(job: Figures) -> dict[str, object]:
    told = (job.get("tuneloop") or {}).get("ratings") or {}
    left_out = told.get("left_out")
    count = sum(left_out.values()) if isinstance(left_out, Mapping) else left_out
    return {"job": job["id"], "pairs": told.get("pairs", "?"), "votes": told.get("votes", "?"), "left_out": count}
