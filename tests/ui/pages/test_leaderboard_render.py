"""The leaderboard page from figures: plots keep to scale, gaps are told, filters survive the address."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest

from tests.browser.arena_example import EMPTY, LEADERBOARD, LONE
from tests.browser.scripted import BASE, CAPTAIN, POET
from ui.frame.live import Action
from ui.html.charts import intervals
from ui.html.charts.scale import ticks
from ui.pages.leaderboard import quality, render
from ui.pages.leaderboard.filters import Filters
from ui.server_client import Model

PARTS = (
    render.summary, render.ratings, render.matrix, render.decisions,
    quality.dimensions, quality.quality, quality.style,
)  # fmt: skip
HOSTILE = "<img src=x>"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (956, 1171, [900, 1000, 1100, 1200]),
        (1000, 1000, None),
        (-3.2, 4.1, [-4, -2, 0, 2, 4, 6]),
        (0.31, 0.36, [0.3, 0.32, 0.34, 0.36]),
    ],
)
def test_ticks_are_round_and_enclose_what_they_measure(low: float, high: float, expected: list[float] | None) -> None:
    marks = ticks(low, high, 4, enclose=True)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert len(marks) >= 2
    assert expected is None or marks == expected


def test_a_dot_stands_on_its_interval_to_scale() -> None:
    svg = intervals.interval_plot(
        [intervals.Interval("base", 1000, 950, 1100, "base: 1000")], title="t", description="d"
    )
    row = svg[svg.index("plot-row") :]
    low, high = (float(x) for x in re.findall(r'x[12]="([\d.]+)%"', row)[:2])
    (dot,) = (float(x) for x in re.findall(r'cx="([\d.]+)%"', row))
    assert (dot - low) / (high - low) == pytest.approx(50 / 150, abs=0.01)


def test_the_plot_says_in_words_what_it_shows() -> None:
    shown = render.ratings(LEADERBOARD, "en")
    assert f"{CAPTAIN}: 1124, between 1077 and 1171" in shown
    assert f"Not scored yet: {LONE}." in shown
    assert f"The dashed line marks {BASE}, fixed at 1000." in shown


def test_groups_that_never_met_are_shown_apart_and_told_so() -> None:
    models = [dict(model) for model in LEADERBOARD["models"][:3]]
    models[2]["group"] = 1
    shown = render.ratings(LEADERBOARD | {"models": models}, "en")
    assert shown.count("<svg") == 2
    assert "can't be compared" in unescape(shown)


def test_the_matrix_turns_a_pairs_rate_round_for_the_other_side() -> None:
    shown = render.matrix(LEADERBOARD, "en")
    assert f"{POET} beats {CAPTAIN} in 38% of comparisons (29% to 47%); direct ratings: 72" in shown


def test_each_pair_is_decided_or_says_what_it_would_take() -> None:
    shown = render.decisions(LEADERBOARD, "en")
    assert f"{CAPTAIN} is better" in shown
    assert "About 310 more ratings needed." in shown
    assert "Not comparable" in shown


def test_alpha_on_few_items_gets_no_reading() -> None:
    few = LEADERBOARD | {"agreement": {"verdict": {"alpha": 0.95, "lower": 0.1, "upper": 1.0, "items": 3}}}
    assert "Too few items" in quality.quality(few, "en")
    assert "Reliable" in quality.quality(LEADERBOARD, "en")


def test_the_best_rated_model_is_offered_first_for_training_and_no_alias() -> None:
    checkpoint = f"{CAPTAIN}:ckpt-step-20"
    parents = {BASE: None, checkpoint: BASE, LONE: BASE, POET: BASE, CAPTAIN: BASE, "support": CAPTAIN}
    models = [Model(name, parent) for name, parent in parents.items()]
    assert quality.trainable(models, LEADERBOARD) == [CAPTAIN, POET, LONE, BASE, checkpoint]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("board", [EMPTY, LEADERBOARD])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_part_can_be_drawn_from_much_and_from_nothing(part: Any, board: dict[str, Any], language: Any) -> None:
    assert isinstance(part(board, language), str)


def test_foreign_names_are_escaped() -> None:
    swap = {CAPTAIN: HOSTILE}
    models = [model | {"model": swap.get(model["model"], model["model"])} for model in LEADERBOARD["models"]]
    pairs = [
        pair | {side: swap.get(pair[side], pair[side]) for side in ("model_a", "model_b")}
        for pair in LEADERBOARD["pairs"]
    ]
    board = LEADERBOARD | {"models": models, "pairs": pairs, "discarded": {HOSTILE: 1}}
    campaign = [{"id": HOSTILE, "name": HOSTILE}]
    shown = "".join(part(board, "en") for part in PARTS)
    shown += render.filter_form(Filters(campaign=HOSTILE, rater=HOSTILE), campaign, [HOSTILE], "en")
    shown += quality.training([HOSTILE], False, "en")
    assert "&lt;img src=x&gt;" in shown
    assert "<img" not in shown


def test_filters_survive_the_address_and_leave_out_what_is_usual() -> None:
    assert Filters().to_query() == {}
    filters = Filters("camp_1", "2026-11-01", "2026-11-30", "Ann", blind_only=False, style_control=True)
    assert Filters.of_query(filters.to_query()) == filters


def test_dates_mean_whole_days_in_utc() -> None:
    asked = Filters(after="2026-11-01", before="2026-11-01").to_api()
    assert asked["before"] - asked["after"] == 86_400
    assert asked["after"] % 86_400 == 0


def test_a_strange_date_in_the_address_is_dropped() -> None:
    assert Filters.of_query({"after": "yesterday", "before": "2026-13-40"}) == Filters()


def test_an_unticked_box_counts_as_off() -> None:
    form = Action("filter", {"campaign": "", "votes": ["style_control"]})
    assert Filters.of_form(form) == Filters(blind_only=False, style_control=True)
