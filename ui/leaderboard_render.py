"""The leaderboard page's HTML from the server's figures: heading, filters, ratings, decisions, and the way to train.

`leaderboard_quality` adds scores, agreement and bias. Every foreign word is escaped. Computes no statistics: the server
has worked out what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ui import plots
from ui.i18n import Language, text
from ui.leaderboard_filters import Filters

Figures = Mapping[str, Any]


def said(language: Language, key: str, **values: object) -> str:
    """A text of this page, escaped."""
    return escape(text(language, f"leaderboard.{key}", **values))


def percent(share: float | None) -> str:
    """A share as whole percents; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.0f}%"


def card(language: Language, title: str, content: str, *, hint: str = "") -> str:
    """A titled part of the page."""
    words = f'<p class="live-hint">{hint}</p>' if hint else ""
    return f'<section class="live-card"><h2 class="live-h2">{said(language, title)}</h2>{words}{content}</section>'


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, numbers: int = 0, named: str = "live-name"
) -> str:
    """A table of HTML cells; the columns from `numbers` on are figures, 0 for none; `named` styles the first one."""

    def kind(column: int) -> str:
        return ' class="live-number"' if numbers and column >= numbers else ""

    top = "".join(f'<th scope="col"{kind(column)}>{words}</th>' for column, words in enumerate(head))
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row" class="{named}">{cell}</th>' if column == 0 else f"<td{kind(column)}>{cell}</td>"
            for column, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="live-scroll" tabindex="0" role="group" aria-label="{caption}"><table class="live-table">'
        f'<caption class="live-hidden">{caption}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def heading(language: Language) -> str:
    """Title and what the page is for."""
    return f'<h1 class="tl-title">{said(language, "title")}</h1><p class="tl-muted">{said(language, "intro")}</p>'


def filter_form(
    filters: Filters, campaigns: Sequence[Figures], raters: Sequence[str], language: Language, turn: int = 0
) -> str:
    """The filters as they are set; each change is sent at once. `turn`: the `Action.turn` that set them."""
    campaign = filters.campaign
    names = {one["id"]: str(one["name"]) for one in campaigns} | ({} if campaign else {"": ""})
    options = _option("", said(language, "every_campaign"), campaign) + "".join(
        _option(one, escape(name), campaign) for one, name in names.items() if one
    )
    options += _option(campaign, escape(campaign), campaign) if campaign and campaign not in names else ""
    known = "".join(f'<option value="{escape(rater)}"></option>' for rater in raters)
    return (
        f'<form class="live-card board-filters" data-do="filter" data-send '
        f'data-fresh="{escape(str(filters.to_query()))}" data-turn="{turn}" aria-label="{said(language, "filters")}">'
        f'<div><label class="live-label" for="board-campaign">{said(language, "campaign")}</label>'
        f'<select class="live-select" id="board-campaign" name="campaign">{options}</select></div>'
        f"{_date('after', filters.after, language)}{_date('before', filters.before, language)}"
        f'<div><label class="live-label" for="board-rater">{said(language, "rater")}</label>'
        f'<input class="live-field" id="board-rater" name="rater" value="{escape(filters.rater)}" list="board-raters" '
        f'placeholder="{said(language, "rater_any")}"><datalist id="board-raters">{known}</datalist></div>'
        f'<div class="board-checks">{_check("blind_only", filters.blind_only, language)}'
        f"{_check('style_control', filters.style_control, language, 'style_info')}</div>"
        f'<div class="live-row board-actions">{_clear(filters, language)}'
        f"{_button('refresh', language)}{_button('csv', language)}</div></form>"
    )


def _option(value: str, words: str, chosen: str) -> str:
    return f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{words}</option>'


def _date(name: str, day: str, language: Language) -> str:
    return (
        f'<div><label class="live-label" for="board-{name}">{said(language, name)}</label><input class="live-field" '
        f'type="date" id="board-{name}" name="{name}" value="{day}" title="{said(language, "dates_info")}"></div>'
    )


def _check(name: str, ticked: bool, language: Language, info: str = "") -> str:
    title = f' title="{said(language, info)}"' if info else ""
    return (
        f'<label class="live-check"{title}><input type="checkbox" name="votes" value="{name}" id="board-{name}"'
        f"{' checked' if ticked else ''}> {said(language, name)}</label>"
    )


def _button(name: str, language: Language) -> str:
    return (
        f'<button type="button" class="live-button live-small" id="board-{name}" data-do="{name}">'
        f"{said(language, name)}</button>"
    )


def _clear(filters: Filters, language: Language) -> str:
    return _button("clear", language) if filters != Filters() else ""


def empty(filters: Filters, language: Language) -> str:
    """What to do while nothing can be shown."""
    kind = "empty" if filters == Filters() else "empty_filtered"
    links = "".join(
        f'<a class="live-button" href="{page}">{said(language, f"to_{page}")}</a>' for page in ("rate", "campaigns")
    )
    return (
        f'<div class="tl-empty-state"><h2>{said(language, kind)}</h2><p>{said(language, f"{kind}_info")}</p>'
        f'<div class="live-row board-links">{links}</div></div>'
    )


def summary(board: Figures, language: Language) -> str:
    """How many votes of how many raters, and what was left out and why."""
    discarded = {reason: number for reason, number in board.get("discarded", {}).items() if number}
    why = ", ".join(f"{_reason(reason, language)} {number}" for reason, number in discarded.items())
    left_out = ""
    if discarded:
        left_out = f"<li><b>{sum(discarded.values())}</b> {said(language, 'left_out')} <small>({why})</small></li>"
    counts = "".join(
        f"<li><b>{board[name]:,}</b> {said(language, f'{name}.one' if board[name] == 1 else name)}</li>"
        for name in ("votes", "raters")
    )
    return f'<ul class="board-summary" aria-live="polite">{counts}{left_out}</ul>'


def _reason(reason: str, language: Language) -> str:
    try:
        return said(language, f"reason.{reason}")
    except KeyError:  # a newer server's reason
        return escape(reason)


def ratings(board: Figures, language: Language) -> str:
    """The ratings as a plot for each group of comparable models, with the table beside it."""
    rated = [model for model in board["models"] if model["rating"] is not None]
    groups = sorted({model["group"] for model in rated})
    shown = "".join(_group_plot(board, rated, group, len(groups) > 1, language) for group in groups)
    apart = f'<p class="tl-notice">{said(language, "groups_info")}</p>' if len(groups) > 1 else ""
    unrated = [model["model"] for model in board["models"] if model["rating"] is None]
    unknown = f'<p class="live-hint">{said(language, "unrated", models=", ".join(unrated))}</p>' if unrated else ""
    hint = said(language, "ratings_info", confidence=f"{100 * board['confidence']:.0f}")
    baseline = board.get("baseline")
    if baseline is not None:
        hint += " " + said(language, "baseline", model=baseline)
    return card(language, "ratings", apart + shown + unknown + _model_table(board, language), hint=hint)


def _group_plot(board: Figures, rated: Sequence[Figures], group: int, several: bool, language: Language) -> str:
    own = [model for model in rated if model["group"] == group]
    rows = [
        plots.Interval(
            model["model"], model["rating"], model["lower"], model["upper"],
            text(language, "leaderboard.row", model=model["model"], rating=f"{model['rating']:.0f}",
                 lower=f"{model['lower']:.0f}", upper=f"{model['upper']:.0f}"),
        )
        for model in own
    ]  # fmt: skip
    title = f"<h3>{said(language, 'group', number=group + 1)}</h3>" if several else ""
    baseline = board.get("baseline")
    reference = 1000.0 if baseline in {model["model"] for model in own} else None
    words = "; ".join(row.spoken for row in rows)
    plot_title = text(language, "leaderboard.plot_title")
    return title + plots.interval_plot(rows, title=plot_title, description=words, reference=reference)


def _model_table(board: Figures, language: Language) -> str:
    head = [said(language, key) for key in ("model", "rank", "rating", "interval", "vote_count", "win_rate",
                                            "tie_rate", "both_bad_rate", "unsafe")]  # fmt: skip
    rows = [
        [
            escape(model["model"]),
            _number(model["rank"]),
            _number(model["rating"]),
            "–" if model["lower"] is None else f"[{model['lower']:.0f}, {model['upper']:.0f}]",
            str(model["votes"]),
            *(percent(model[rate]) for rate in ("win_rate", "tie_rate", "both_bad_rate")),
            str(model.get("unsafe", 0)),
        ]
        for model in board["models"]
    ]
    return table(head, rows, caption=said(language, "table"), numbers=1)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def matrix(board: Figures, language: Language) -> str:
    """The win rates of each model against each."""
    names = [model["model"] for model in board["models"]]
    pairs = {(pair["model_a"], pair["model_b"]): pair for pair in board["pairs"]}
    cells = [[_cell(pairs, row, column, language) for column in names] for row in names]
    caption, corner = text(language, "leaderboard.matrix"), text(language, "leaderboard.matrix_corner")
    shown = plots.heat_table(names, cells, caption=caption, corner=corner)
    return card(language, "matrix", shown, hint=said(language, "matrix_info"))


def _cell(pairs: Mapping[tuple[str, str], Figures], row: str, column: str, language: Language) -> plots.Cell:
    if row == column:
        return plots.Cell("", None)
    straight = pairs.get((row, column))
    pair = straight or pairs.get((column, row))
    if pair is None or pair["win_rate_a"] is None:
        return plots.Cell("–", None)
    shares = [pair[name] for name in ("win_rate_a", "lower", "upper")]
    rate, lower, upper = shares if straight else (1 - shares[0], 1 - shares[2], 1 - shares[1])
    spoken = text(
        language, "leaderboard.cell", row=row, column=column, rate=percent(rate), lower=percent(lower),
        upper=percent(upper), votes=pair["votes"],
    )  # fmt: skip
    return plots.Cell(percent(rate), rate, spoken)


def decisions(board: Figures, language: Language) -> str:
    """For each pair whether it is decided, and how many more votes would decide it."""
    rows = [
        [
            f"{escape(pair['model_a'])}<br>{escape(pair['model_b'])}",
            _decision(pair, language),
            str(pair["votes"]),
            said(language, "tally", a=pair["wins_a"], b=pair["wins_b"], ties=pair["ties"], both_bad=pair["both_bad"]),
        ]
        for pair in board["pairs"]
    ]
    head = [said(language, key) for key in ("pair", "verdict", "direct")] + [""]
    return card(language, "pairs", table(head, rows, caption=said(language, "pairs")))


def _decision(pair: Figures, language: Language) -> str:
    if pair["win_rate_a"] is None:
        return said(language, "apart")
    if pair["decided"]:
        better = pair["model_a"] if pair["win_rate_a"] > 0.5 else pair["model_b"]
        return f'<b class="board-decided">✓ {said(language, "decided", model=better)}</b>'
    if pair["more_votes"] is None:
        return said(language, "open")
    return said(language, "more_votes", votes=f"{pair['more_votes']:,}")
