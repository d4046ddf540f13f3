"""Leaderboards: reads the ratings, computes with `evaluation.arena`, and caches the result until there are new ones."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool

from evaluation.arena import Votes, rate
from server.arena.leaderboard.counted_votes import CountedRatings, read_counted_ratings
from server.arena.leaderboard.objects import leaderboard_object
from server.arena.ratings.reading import RatingFilter, count_ratings
from server.storage.database import Database

KEPT = 64
"""How many leaderboards are cached."""


@dataclass(frozen=True)
class LeaderboardSpec:
    """The parameters of a leaderboard."""

    rating_filter: RatingFilter
    """Which ratings; those that fail `blind_only` are counted as discarded."""
    confidence: float
    style_control: bool
    baselines: tuple[str, ...] = ()
    """The first of these models with ratings is set to 1000 points."""


class Leaderboards:
    """Computes leaderboards, one at a time, and caches each until there is another rating."""

    def __init__(self) -> None:
        self._kept: OrderedDict[LeaderboardSpec, tuple[int, dict[str, Any]]] = OrderedDict()
        self._lock = asyncio.Lock()

    async def get(self, database: Database, spec: LeaderboardSpec) -> dict[str, Any]:
        """Return the leaderboard as the API's object."""
        async with self._lock:
            count = await database.run(count_ratings)
            kept = self._kept.get(spec)
            if kept is None or kept[0] != count:
                votes = await database.run(
                    partial(read_counted_ratings, rating_filter=spec.rating_filter, with_style=spec.style_control)
                )
                kept = count, await run_in_threadpool(_compute, votes, spec)
                self._keep(spec, kept)
            self._kept.move_to_end(spec)
            return kept[1]

    def _keep(self, spec: LeaderboardSpec, answer: tuple[int, dict[str, Any]]) -> None:
        self._kept[spec] = answer
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)


def _compute(counted: CountedRatings, spec: LeaderboardSpec) -> dict[str, Any]:
    models = {*counted.left, *counted.right}
    baseline = next((name for name in spec.baselines if name in models), None)
    style = counted.style or []
    votes = Votes.from_columns(
        left=counted.left,
        right=counted.right,
        verdict=counted.verdict,
        rater=counted.rater,
        prompt=counted.prompt,
        item=counted.pair,
        style_left=[left for left, _ in style] if spec.style_control else None,
        style_right=[right for _, right in style] if spec.style_control else None,
    )
    board = rate(votes, confidence=spec.confidence, style_control=spec.style_control, baseline=baseline)
    return leaderboard_object(board, counted, style_control=spec.style_control)
