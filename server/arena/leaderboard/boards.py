"""Answers with leaderboards: has votes read, has `evaluation.arena` rate them, keeps the result until there are more.

Makes no statistics of its own and knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool

from evaluation.arena import Votes, rate
from server.arena.leaderboard.counted_votes import CountedVotes, read_votes
from server.arena.leaderboard.objects import leaderboard_object
from server.arena.ratings.reading import Wanted, count_ratings
from server.storage.database import Database

KEPT = 64
"""Leaderboards that are kept for whoever asks the same again."""


@dataclass(frozen=True)
class Question:
    """What a leaderboard is made of."""

    wanted: Wanted
    """Which votes; `blind_only` is counted as a reason for leaving votes out."""
    confidence: float
    style_control: bool
    baselines: tuple[str, ...] = ()
    """Models of which the first that has votes stands at 1000 points."""


class Leaderboards:
    """Works leaderboards out, one at a time, and keeps each until there is another vote."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Question, tuple[int, dict[str, Any]]] = OrderedDict()
        self._lock = asyncio.Lock()

    async def get(self, database: Database, question: Question) -> dict[str, Any]:
        """The leaderboard on the wire."""
        async with self._lock:
            count = await database.run(count_ratings)
            kept = self._kept.get(question)
            if kept is None or kept[0] != count:
                votes = await database.run(
                    partial(read_votes, wanted=question.wanted, with_style=question.style_control)
                )
                kept = count, await run_in_threadpool(_rated, votes, question)
                self._keep(question, kept)
            self._kept.move_to_end(question)
            return kept[1]

    def _keep(self, question: Question, answer: tuple[int, dict[str, Any]]) -> None:
        self._kept[question] = answer
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)


def _rated(counted: CountedVotes, question: Question) -> dict[str, Any]:
    models = {*counted.left, *counted.right}
    baseline = next((name for name in question.baselines if name in models), None)
    style = counted.style or []
    votes = Votes.from_columns(
        left=counted.left,
        right=counted.right,
        verdict=counted.verdict,
        rater=counted.rater,
        prompt=counted.prompt,
        item=counted.pair,
        style_left=[left for left, _ in style] if question.style_control else None,
        style_right=[right for _, right in style] if question.style_control else None,
    )
    board = rate(votes, confidence=question.confidence, style_control=question.style_control, baseline=baseline)
    return leaderboard_object(board, counted, style_control=question.style_control)
