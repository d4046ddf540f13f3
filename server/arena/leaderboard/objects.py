"""The leaderboard as it goes over the wire, as JSON and as CSV. Rounds; decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from evaluation.arena import Agreement, Interval, Leaderboard, MeanScore, ModelStanding, PairStanding
from server.arena.leaderboard.counted_votes import CountedVotes
from server.arena.leaderboard.dimension_scores import DimensionScores
from server.storage.tables import now_s
from server.wire.csv_lines import csv_line

CSV_COLUMNS = (
    "rank", "model", "rating", "lower", "upper", "group", "votes", "wins", "losses", "ties", "both_bad", "win_rate",
    "tie_rate", "both_bad_rate", "unsafe",
)  # fmt: skip
DECIMALS = 4
"""Of points and rates; the rest would be noise."""


def leaderboard_object(board: Leaderboard, votes: CountedVotes, *, style_control: bool) -> dict[str, Any]:
    """The leaderboard with what the votes say beside their verdicts."""
    scores, unsafe = DimensionScores.of(votes), _unsafe(votes)
    means = {one.model: scores.means(one.model, board.confidence) for one in board.models}
    agreed = {name: _agreement(alpha) for name, alpha in scores.agreement(board.confidence).items()}
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
        "models": [_model(one, unsafe[one.model], means[one.model]) for one in board.models],
        "pairs": [_pair(pair) for pair in board.pairs],
        "agreement": {"verdict": _agreement(board.agreement), "dimensions": agreed},
        "position_bias": {
            "left_wins": board.position.left_wins,
            "decided": board.position.decided,
            **_named(board.position.left_rate, "left_rate"),
        },
        "style": None if board.style is None else {name: _named(one, "effect") for name, one in board.style.items()},
    }


def leaderboard_csv(board: dict[str, Any]) -> Iterator[str]:
    """A header and a row for each model, with the mean of each dimension that was scored."""
    dimensions = sorted({name for model in board["models"] for name in model["dimensions"]})
    yield csv_line((*CSV_COLUMNS, *dimensions))
    for model in board["models"]:
        means = [model["dimensions"].get(name, {}).get("mean") for name in dimensions]
        yield csv_line([*(model[column] for column in CSV_COLUMNS), *means])


def _model(standing: ModelStanding, unsafe: int, dimensions: dict[str, MeanScore]) -> dict[str, Any]:
    return {
        "model": standing.model,
        **_named(standing.rating, "rating"),
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
        "dimensions": {name: _mean(mean) for name, mean in dimensions.items()},
    }


def _pair(pair: PairStanding) -> dict[str, Any]:
    return {
        "model_a": pair.model_a,
        "model_b": pair.model_b,
        "votes": pair.votes,
        "wins_a": pair.wins_a,
        "wins_b": pair.wins_b,
        "ties": pair.ties,
        "both_bad": pair.both_bad,
        **_named(pair.win_rate_a, "win_rate_a"),
        "difference": _named(pair.difference, "points"),
        "decided": pair.decided,
        "more_votes": pair.more_votes,
    }


def _mean(mean: MeanScore) -> dict[str, Any]:
    numbers = {name: _round(getattr(mean, name)) for name in ("mean", "lower", "upper")}
    return numbers | {"votes": mean.votes}


def _agreement(found: Agreement) -> dict[str, Any]:
    numbers = {name: _round(getattr(found, name)) for name in ("alpha", "lower", "upper")}
    return numbers | {"items": found.items}


def _unsafe(votes: CountedVotes) -> Counter[str]:
    """How often each model's answer was marked as unsafe."""
    marked: Counter[str] = Counter()
    for row, unsafe in enumerate(votes.unsafe):
        if unsafe is not None:
            marked[votes.left[row]] += unsafe != "right"
            marked[votes.right[row]] += unsafe != "left"
    return marked


def _named(interval: Interval | None, name: str) -> dict[str, float | None]:
    if interval is None:
        return {name: None, "lower": None, "upper": None}
    return {name: _round(interval.value), "lower": _round(interval.lower), "upper": _round(interval.upper)}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
