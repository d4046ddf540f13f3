"""Counts the current ratings of each pair of models, reading only those added since the last count.

The counts are kept in memory, so that a draw doesn't read a million ratings. On PostgreSQL, a rating that is committed
after one with a higher number may stay uncounted until the next start, which only changes the probabilities a little.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session, aliased

from server.storage.tables import RatingRow

Pair = frozenset[str]


class PairCounts:
    """The counts of one database."""

    def __init__(self) -> None:
        self._counts: Counter[Pair] = Counter()
        self._read_to = 0
        self._lock = threading.Lock()

    def read(self, session: Session) -> Mapping[Pair, int]:
        """Return pair of models → current ratings."""
        with self._lock:
            replaced = aliased(RatingRow)
            gained, lost = (
                func.sum(case((table.verdict.is_(None) | (table.verdict == "withdrawn"), 0), else_=1))
                for table in (RatingRow, replaced)
            )
            since = (
                select(RatingRow.left_model, RatingRow.right_model, gained, lost, func.max(RatingRow.number))
                .outerjoin(replaced, replaced.id == RatingRow.supersedes)
                .where(RatingRow.number > self._read_to)
                .group_by(RatingRow.left_model, RatingRow.right_model)
            )
            for left, right, more, fewer, number in session.execute(since).all():
                self._counts[frozenset((left, right))] += more - fewer
                self._read_to = max(self._read_to, number)
            return dict(self._counts)
