"""The leaderboard page's HTML from the server's response: heading, filters, scores, pairwise results.

`quality` adds dimension scores, agreement, bias, and training. Computes no statistics; the
server does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ui.html.charts import intervals
from ui.html.templates import render
from ui.pages.leaderboard.filters import Filters
from ui.words.i18n import TEXTS, Language, text

Figures = Mapping[str, Any]


def render_block(block: str, language: Language, **values: object) -> Markup:
    """Render one of this page's templates."""
    return render(f"pages/leaderboard/templates/{block}.html", language, **values)


def percent(share: float | None) -> str:
    """Return a share in whole percent; a dash for None."""
    return "–" if share is None else f"{100 * share:.0f}%"


def heading(language: Language) -> Markup:
    """Return title and introduction."""
    return render_block("heading", language)


def filter_form(
    filters: Filters, campaigns: Sequence[Figures], raters: Sequence[str], language: Language, turn: int = 0
) -> Markup:
    """Return the filters; each change is submitted at once. `turn`: the `Action.turn` that set them."""
    names = {"": text(language, "leaderboard.every_campaign")}
    names |= {one["id"]: str(one["name"]) for one in campaigns}
    names.setdefault(filters.campaign, filters.campaign)
    return render_block(
        "filters",
        language,
        filters=filters,
        turn=turn,
        campaigns=names.items(),
        raters=raters,
        can_clear=filters != Filters(),
    )


def empty(filters: Filters, language: Language) -> Markup:
    """Return what to do while there is nothing to show."""
    return render_block(
        "empty", language, key="leaderboard.empty" if filters == Filters() else "leaderboard.empty_filtered"
    )


def summary(board: Figures, language: Language) -> Markup:
    """Return the number of ratings and raters, and what was left out and why."""
    keys = {
        name: f"leaderboard.{name}.one" if board[name] == 1 else f"leaderboard.{name}" for name in ("votes", "raters")
    }
    counts = [(board[name], text(language, key)) for name, key in keys.items()]
    discarded = {_reason(reason, language): number for reason, number in board.get("discarded", {}).items() if number}
    return render_block("summary", language, counts=counts, discarded=discarded)


def _reason(reason: str, language: Language) -> str:
    return TEXTS[language].get(f"leaderboard.reason.{reason}", reason)  # a newer server's reason is shown unchanged


def ratings(board: Figures, language: Language) -> Markup:
    """Return the scores: a chart for each group of comparable models, and a table."""
    rated = [model for model in board["models"] if model["rating"] is not None]
    groups = sorted({model["group"] for model in rated})
    hint = text(language, "leaderboard.ratings_info", confidence=f"{100 * board['confidence']:.0f}")
    if (baseline := board.get("baseline")) is not None:
        hint += " " + text(language, "leaderboard.baseline", model=baseline)
    columns = ("model", "rank", "rating", "interval", "vote_count", "win_rate", "tie_rate", "both_bad_rate", "unsafe")
    return render_block(
        "ratings",
        language,
        hint=hint,
        plots=[(group, _group_plot(board, rated, group, language)) for group in groups],
        unrated=[model["model"] for model in board["models"] if model["rating"] is None],
        head=[text(language, f"leaderboard.{column}") for column in columns],
        rows=[(model["model"], _figures(model)) for model in board["models"]],
    )


def _group_plot(board: Figures, rated: Sequence[Figures], group: int, language: Language) -> Markup:
    own = [model for model in rated if model["group"] == group]
    rows = [
        intervals.Interval(
            model["model"], model["rating"], model["lower"], model["upper"],
            text(language, "leaderboard.row", model=model["model"], rating=f"{model['rating']:.0f}",
                 lower=f"{model['lower']:.0f}", upper=f"{model['upper']:.0f}"),
        )
        for model in own
    ]  # fmt: skip
    reference = 1000.0 if board.get("baseline") in {model["model"] for model in own} else None
    words = "; ".join(row.spoken for row in rows)
    title = text(language, "leaderboard.plot_title")
    return intervals.interval_plot(rows, title=title, description=words, reference=reference)


def _figures(model: Figures) -> list[str]:
    return [
        *("–" if model[name] is None else f"{model[name]:.0f}" for name in ("rank", "rating")),
        "–" if model["lower"] is None else f"[{model['lower']:.0f}, {model['upper']:.0f}]",
        str(model["votes"]),
        *(percent(model[rate]) for rate in ("win_rate", "tie_rate", "both_bad_rate")),
        str(model.get("unsafe", 0)),
    ]


def matrix(board: Figures, language: Language) -> Markup:
    """Return the matrix of win rates."""
    names = [model["model"] for model in board["models"]]
    pairs = {(pair["model_a"], pair["model_b"]): pair for pair in board["pairs"]}
    cells = [[_cell(pairs, row, column, language) for column in names] for row in names]
    caption, corner = text(language, "leaderboard.matrix"), text(language, "leaderboard.matrix_corner")
    table = intervals.heat_table(names, cells, caption=caption, corner=corner)
    return render_block("matrix", language, table=table)


def _cell(pairs: Mapping[tuple[str, str], Figures], row: str, column: str, language: Language) -> intervals.Cell:
    if row == column:
        return intervals.Cell("", None)
    straight = pairs.get((row, column))
    pair = straight or pairs.get((column, row))
    if pair is None or pair["win_rate_a"] is None:
        return intervals.Cell("–", None)
    shares = [pair[name] for name in ("win_rate_a", "lower", "upper")]
    rate, lower, upper = shares if straight else (1 - shares[0], 1 - shares[2], 1 - shares[1])
    spoken = text(
        language, "leaderboard.cell", row=row, column=column, rate=percent(rate), lower=percent(lower),
        upper=percent(upper), votes=pair["votes"],
    )  # fmt: skip
    return intervals.Cell(percent(rate), rate, spoken)


def decisions(board: Figures, language: Language) -> Markup:
    """Return for each pair whether it is decided, and how many more ratings would decide it."""
    pairs = [(pair, _better(pair), _undecided(pair, language)) for pair in board["pairs"]]
    return render_block("decisions", language, pairs=pairs)


def _better(pair: Figures) -> str | None:
    if pair["win_rate_a"] is None or not pair["decided"]:
        return None
    return str(pair["model_a"] if pair["win_rate_a"] > 0.5 else pair["model_b"])


def _undecided(pair: Figures, language: Language) -> str:
    if pair["win_rate_a"] is None:
        return text(language, "leaderboard.apart")
    if pair["more_votes"] is None:
        return text(language, "leaderboard.open")
    return text(language, "leaderboard.more_votes", votes=f"{pair['more_votes']:,}")
