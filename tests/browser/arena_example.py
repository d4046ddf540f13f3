"""A leaderboard as the server answers it, with something of everything that the page shows."""

from __future__ import annotations

from typing import Any

from tests.browser.scripted import BASE, CAPTAIN, POET

LONE = "ft:base:personal:newcomer:cccccccc"


def _model(
    name: str, rating: float | None, spread: float, rank: int | None, group: int, **counts: Any
) -> dict[str, Any]:
    lower, upper = (None, None) if rating is None else (rating - spread, rating + spread)
    votes = counts["votes"]
    return {
        "model": name, "rating": rating, "lower": lower, "upper": upper, "rank": rank, "group": group, **counts,
        "win_rate": counts["wins"] / votes if votes else None, "tie_rate": counts["ties"] / votes if votes else None,
        "both_bad_rate": counts["both_bad"] / votes if votes else None,
    }  # fmt: skip


def _scores(*means: float) -> dict[str, Any]:
    names = ("instruction_following", "relevance", "fluency", "helpfulness")
    return {
        name: {"mean": mean, "lower": mean - 0.21, "upper": min(5.0, mean + 0.21), "votes": 84}
        for name, mean in zip(names, means, strict=True)
    }


def _pair(a: str, b: str, votes: int, rate: float | None, spread: float, **more: Any) -> dict[str, Any]:
    lower, upper = (None, None) if rate is None else (rate - spread, rate + spread)
    wins = round(votes * 0.8 * (rate or 0))
    return {
        "model_a": a, "model_b": b, "votes": votes, "wins_a": wins, "wins_b": round(votes * 0.8) - wins,
        "ties": votes // 8, "both_bad": votes // 20, "win_rate_a": rate, "lower": lower, "upper": upper,
        "decided": False, "more_votes": None,
    } | more  # fmt: skip


LEADERBOARD: dict[str, Any] = {
    "object": "leaderboard", "created_at": 1_790_000_000, "votes": 214, "raters": 9,
    "discarded": {"unfinished": 6, "identity_leak": 3, "duplicate": 1, "not_blind": 0},
    "confidence": 0.95, "style_control": False, "baseline": BASE,
    "models": [
        _model(CAPTAIN, 1124.0, 47.0, 1, 0, votes=146, wins=86, losses=32, ties=20, both_bad=8, unsafe=0,
               dimensions=_scores(4.2, 4.3, 4.6, 4.1)),
        _model(POET, 1038.0, 52.0, 2, 0, votes=140, wins=60, losses=50, ties=22, both_bad=8, unsafe=2,
               dimensions=_scores(3.4, 3.6, 4.5, 3.3)),
        _model(BASE, 1000.0, 44.0, 2, 0, votes=142, wins=40, losses=66, ties=24, both_bad=12, unsafe=1,
               dimensions=_scores(3.3, 3.9, 3.8, 3.4)),
        _model(LONE, None, 0.0, None, 1, votes=0, wins=0, losses=0, ties=0, both_bad=0, unsafe=0, dimensions={}),
    ],
    "pairs": [
        _pair(CAPTAIN, POET, 72, 0.62, 0.09, decided=True),
        _pair(CAPTAIN, BASE, 74, 0.67, 0.08, decided=True),
        _pair(POET, BASE, 68, 0.55, 0.1, more_votes=310),
        _pair(CAPTAIN, LONE, 0, None, 0.0),
    ],
    "agreement": {
        "verdict": {"alpha": 0.71, "lower": 0.6, "upper": 0.8, "items": 64},
        "dimensions": {
            "instruction_following": {"alpha": 0.83, "lower": 0.74, "upper": 0.9, "items": 61},
            "fluency": {"alpha": 0.41, "lower": 0.2, "upper": 0.58, "items": 61},
            "helpfulness": {"alpha": None, "lower": None, "upper": None, "items": 1},
        },
    },
    "position_bias": {"left_wins": 92, "decided": 176, "left_rate": 0.523, "lower": 0.448, "upper": 0.597},
    "style": {
        "length": {"effect": 31.0, "lower": 12.0, "upper": 50.0},
        "headers": {"effect": 2.0, "lower": -9.0, "upper": 13.0},
        "lists": {"effect": -4.0, "lower": -18.0, "upper": 10.0}, "bold": {"effect": 6.0, "lower": -7.0, "upper": 19.0},
    },
}  # fmt: skip
"""Three models that met, one that nobody has met yet."""
EMPTY: dict[str, Any] = LEADERBOARD | {
    "votes": 0, "raters": 0, "discarded": {}, "models": [], "pairs": [], "style": None, "baseline": None,
    "agreement": {"verdict": {"alpha": None, "lower": None, "upper": None, "items": 0}, "dimensions": {}},
    "position_bias": {"left_wins": 0, "decided": 0, "left_rate": None, "lower": None, "upper": None},
}  # fmt: skip
