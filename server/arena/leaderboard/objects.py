"""The leaderboard as the API's object and as CSV, with rounded numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from evaluation.arena import Agreement, Interval, Leaderboard, MeanScore, ModelStanding, PairStanding
from server.arena.leaderboard.counted_votes import CountedRatings
from server.arena.leaderboard.dimension_scores import DimensionScores
from server.storage.tables import now_s
from server.wire.csv_lines import csv_line

CSV_COLUMNS = (
    "rank", "model", "rating", "lower", "upper", "group", "votes", "wins", "losses", "ties", "both_bad", "win_rate",
    "tie_rate", "both_bad_rate", "unsafe",
)  # fmt: skip
DECIMALS = 4
"""Decimals of points and rates; more would be noise."""


def leaderboard_object(board: Leaderboard, votes: CountedRatings, *, style_control: bool) -> dict[str, Any]:
    """Return the leaderboard as the API's object, including dimension scores and unsafe marks."""
    scores, unsafe = DimensionScores.from_ratings(votes), _count_unsafe(votes)
    means = {one.model: scores.compute_means(one.model, board.confidence) for one in board.models}
    agreed = {name: _build_agreement(alpha) for name, alpha in scores.compute_agreement(board.confidence).items()}
    return {
        "object": "leaderboard",
        "created_at": now_s(),
        "votes": board.votes,
        "raters": board.raters,
        "discarded": dict(votes.discarded),
        "confidence": board.confidence,
        "style_control": style_control,
        "baseline": board.baseline,
        "at_large": list(board.at_large),
        "models": [_build_model(one, unsafe[one.model], means[one.model]) for one in board.models],
        "pairs": [_build_pair(pair) for pair in board.pairs],
        "agreement": {"verdict": _build_agreement(board.agreement), "dimensions": agreed},
        "position_bias": {
            "left_wins": board.position.left_wins,
            "decided": board.position.decided,
            **_build_interval(board.position.left_rate, "left_rate"),
        },
        "style": None
        if board.style is None
        else {name: _build_interval(one, "effect") for name, one in board.style.items()},
    }


def leaderboard_csv(board: dict[str, Any]) -> Iterator[str]:
    """Yield a header and a row per model, with the mean of each dimension that was scored."""
    dimensions = sorted({name for model in board["models"] for name in model["dimensions"]})
    yield csv_line((*CSV_COLUMNS, *dimensions))
    for model in board["models"]:
        means = [model["dimensions"].get(name, {}).get("mean") for name in dimensions]
        yield csv_line([*(model[column] for column in CSV_COLUMNS), *means])


def _build_model(standing: ModelStanding, unsafe: int, dimensions: dict[str, MeanScore]) -> dict[str, Any]:
    return {
        "model": standing.model,
        **_build_interval(standing.rating, "rating"),
        "rank": standing.rank,
        "group": standing.group,
        "votes": standing.votes,
        "wins": standing.wins,
        "losses": standing.losses,
        "ties": standing.ties,
        "both_bad": standing.both_bad,
        "win_rate": _round(standing.win_rate),
        "tie_rate": _round(standing.tie_rate),
        "both_bad_rate": _round(standing.both_bad_rate),
        "unsafe": unsafe,
        "dimensions": {name: _build_mean(mean) for name, mean in dimensions.items()},
    }


def _build_pair(pair: PairStanding) -> dict[str, Any]:
    return {
        "model_a": pair.model_a,
        "model_b": pair.model_b,
        "votes": pair.votes,
        "wins_a": pair.wins_a,
        "wins_b": pair.wins_b,
        "ties": pair.ties,
        "both_bad": pair.both_bad,
        **_build_interval(pair.win_rate_a, "win_rate_a"),
        "difference": _build_interval(pair.difference, "points"),
        "decided": pair.decided,
        "more_votes": pair.more_votes,
    }


def _build_mean(mean: MeanScore) -> dict[str, Any]:
    numbers = {name: _round(getattr(mean, name)) for name in ("mean", "lower", "upper")}
    return numbers | {"votes": mean.votes}


def _build_agreement(found: Agreement) -> dict[str, Any]:
    numbers = {name: _round(getattr(found, name)) for name in ("alpha", "lower", "upper")}
    return numbers | {"items": found.items}


def _count_unsafe(votes: CountedRatings) -> Counter[str]:
    """Count how often each model's answer was marked as unsafe."""
    marked: Counter[str] = Counter()
    for row, unsafe in enumerate(votes.unsafe):
        if unsafe is not None:
            marked[votes.left[row]] += unsafe != "right"
            marked[votes.right[row]] += unsafe != "left"
    return marked


def _build_interval(interval: Interval | None, name: str) -> dict[str, float | None]:
    if interval is None:
        return {name: None, "lower": None, "upper": None}
    return {name: _round(interval.value), "lower": _round(interval.lower), "upper": _round(interval.upper)}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
