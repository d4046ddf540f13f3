"""The lower half of the leaderboard page: scores, rater agreement, position bias, style effects, training on the votes.

Computes no statistics; the words for α follow Krippendorff's own reading (0.8 reliable, 0.667 the least for tentative
conclusions; Content Analysis, 2004, p. 241).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ui import plots
from ui.client import Model
from ui.i18n import Language, text
from ui.leaderboard_render import Figures, card, percent, said, table
from ui.rate_state import DIMENSIONS

RELIABLE, TENTATIVE = 0.8, 0.667
"""Krippendorff's thresholds."""
FEWEST_ITEMS = 10
"""Items below which α is shown without a reading."""


def dimension_name(name: str, language: Language) -> str:
    """The dimension's name in words; as it is where it isn't one of ours."""
    return escape(text(language, f"rate.dimension.{name}")) if name in DIMENSIONS else escape(name)


def dimensions(board: Figures, language: Language) -> str:
    """Each model's mean score with its interval, a column for each dimension."""
    models = [model for model in board["models"] if model.get("dimensions")]
    hint = said(language, "dimensions_info", confidence=f"{100 * board['confidence']:.0f}")
    if not models:
        return card(language, "dimensions", f"<p>{said(language, 'no_scores')}</p>", hint=hint)
    names = _dimension_names(models)
    rows = [[escape(model["model"]), *(_mean(model["dimensions"].get(name)) for name in names)] for model in models]
    head = [said(language, "model"), *(dimension_name(name, language) for name in names)]
    return card(language, "dimensions", table(head, rows, caption=said(language, "dimensions")), hint=hint)


def _dimension_names(models: Sequence[Figures]) -> list[str]:
    given = {name for model in models for name in model["dimensions"]}
    return [name for name in DIMENSIONS if name in given] + sorted(given - set(DIMENSIONS))


def _mean(mean: Figures | None) -> str:
    if mean is None or mean["mean"] is None:
        return "–"
    words = f"<b>{mean['mean']:.2f}</b>"
    if mean["lower"] is not None:
        small = plots.small_interval(mean["mean"], mean["lower"], mean["upper"], low=1, high=5)
        words += f"{small}<small>[{mean['lower']:.2f}, {mean['upper']:.2f}]</small>"
    return f'<span class="board-mean">{words}<small>n = {mean["votes"]}</small></span>'


def quality(board: Figures, language: Language) -> str:
    """How far to trust the rest: agreement between raters, and whether the side matters."""
    return (
        f'<div class="board-two">{_agreement(board["agreement"], language)}'
        f"{_position(board['position_bias'], language)}</div>"
    )


def _agreement(agreement: Figures, language: Language) -> str:
    told = {said(language, "verdicts"): agreement["verdict"]}
    told |= {dimension_name(name, language): value for name, value in agreement.get("dimensions", {}).items()}
    rows = [[name, *_alpha(value, language)] for name, value in told.items()]
    head = ["", said(language, "alpha"), said(language, "items"), said(language, "reading")]
    shown = table(head, rows, caption=said(language, "agreement"), named="")
    return card(language, "agreement", shown, hint=said(language, "agreement_info"))


def _alpha(value: Mapping[str, Any], language: Language) -> list[str]:
    alpha, items = value["alpha"], str(value["items"])
    if alpha is None:
        return ["–", items, said(language, "alpha.none")]
    interval = "" if value["lower"] is None else f" <small>[{value['lower']:.2f}, {value['upper']:.2f}]</small>"
    level = "high" if alpha >= RELIABLE else "middling" if alpha >= TENTATIVE else "low"
    level = level if value["items"] >= FEWEST_ITEMS else "none"
    return [f"<b>{alpha:.2f}</b>{interval}", items, said(language, f"alpha.{level}")]


def _position(bias: Figures, language: Language) -> str:
    if bias["left_rate"] is None:
        return card(language, "position", f"<p>{said(language, 'position_none')}</p>")
    lower, upper = bias["lower"], bias["upper"]
    rate = said(
        language, "position_rate", rate=percent(bias["left_rate"]), decided=bias["decided"], lower=percent(lower),
        upper=percent(upper),
    )  # fmt: skip
    reading = "position_fine" if lower is None or lower <= 0.5 <= upper else "position_biased"
    small = "" if lower is None else plots.small_interval(bias["left_rate"], lower, upper, low=0, high=1)
    return card(language, "position", f"<p>{rate}</p>{small}<p>{said(language, reading)}</p>")


def style(board: Figures, language: Language) -> str:
    """What length and formatting are worth, where they are controlled for."""
    effects = board.get("style")
    if not effects:
        return ""
    rows = [
        [
            said(language, f"style.{name}") if name in ("length", "headers", "lists", "bold") else escape(name),
            f"<b>{effect['effect']:+.0f}</b> <small>[{effect['lower']:+.0f}, {effect['upper']:+.0f}]</small>",
        ]
        for name, effect in effects.items()
    ]
    shown = table(["", said(language, "effect")], rows, caption=said(language, "style"), named="")
    return card(language, "style", shown, hint=said(language, "style_effects_info"))


def trainable(models: Sequence[Model], board: Figures) -> list[str]:
    """What can be trained on, the likeliest first: tuned models by rating, the base, checkpoints. Aliases are left out,
    as what they stand for is there itself."""
    tuned = {model.name for model in models if model.parent is not None}
    ratings = {row["model"]: row["rating"] for row in board["models"] if row["rating"] is not None}

    def place(model: Model) -> tuple[int, float, bool]:
        kind = 2 if ":ckpt-step-" in model.name else 1 if model.parent is None else 0
        return kind, -ratings.get(model.name, float("-inf")), not model.name.startswith("ft:")

    return [model.name for model in sorted(models, key=place) if model.parent not in tuned]


def training(models: Sequence[str], sending: bool, language: Language) -> str:
    """The button that turns the votes into the next adapter."""
    options = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in models)
    go = said(language, "train_sending" if sending else "train_go")
    form = (
        f'<form class="board-train" data-do="train" data-keep="leaderboard.train">'
        f'<div><label class="live-label" for="board-model">{said(language, "train_model")}</label>'
        f'<select class="live-select" id="board-model" name="model">{options}</select></div>'
        f'<button class="live-button live-primary" id="board-train"{" disabled" if sending or not models else ""}>'
        f"{go}</button></form>"
    )
    return card(language, "train", form, hint=said(language, "train_info"))


def training_started(job: Figures, language: Language) -> str:
    """The job that was started, with the link to it."""
    told = (job.get("tuneloop") or {}).get("ratings") or {}
    words = said(language, "train_started", pairs=told.get("pairs", "?"), votes=told.get("votes", "?"))
    left_out = told.get("left_out")
    count = sum(left_out.values()) if isinstance(left_out, Mapping) else left_out
    more = f" <small>{said(language, 'train_left_out', count=count)}</small>" if count else ""
    job_id = escape(str(job["id"]))
    return (
        f'<div class="tl-notice board-started" role="status"><p>✓ {words}{more}</p>'
        f'<a class="live-button live-small" href="train?job={job_id}">{said(language, "train_follow")}</a></div>'
    )
