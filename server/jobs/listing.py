"""Listing jobs: filters by metadata, positions in the queue, and counts by status.

https://platform.openai.com/docs/api-reference/fine-tuning/list
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from server.jobs import states
from server.jobs.create.ranges import is_storable
from server.storage.tables import JobRow
from server.wire.errors import BadRequest

WAITING = ("validating_files", "queued")
_FILTER = re.compile(r"metadata\[(.*)\]", re.DOTALL)

Filter = tuple[str | None, str]
"""Key and value; a key of None selects jobs without metadata."""


def parse_metadata_filters(query: Iterable[tuple[str, str]]) -> list[Filter]:
    """Return the filters among the query parameters, `metadata[k]=v` or `metadata=null`.

    Raises:
        BadRequest: both forms at once, or another value of `metadata`.
    """
    found: list[Filter] = []
    for name, value in query:
        if name == "metadata":
            if value != "null":
                raise _filter_error(
                    f"metadata is {value[:100]!r}, but only metadata=null and metadata[key]=value are supported."
                )
            found.append((None, value))
        elif match := _FILTER.fullmatch(name):
            if not is_storable([match[1], value]):
                raise _filter_error("The filter contains a NUL character, which metadata can't have. Remove it.")
            found.append((match[1], value))
    if len({key is None for key, _ in found}) > 1:
        raise _filter_error(
            "metadata=null selects jobs without metadata, so it can't be combined with metadata[key]=value. "
            "Use only one."
        )
    return found


def build_condition(session: Session, key: str | None, value: str) -> ColumnElement[bool]:
    """Return one filter as a condition for this database."""
    if key is None:
        return JobRow.metadata_.is_(None)
    if session.get_bind().dialect.name == "postgresql":
        return JobRow.metadata_.op("->>")(key) == value
    # A path such as $."key" can't name every key; json_each compares keys as they are.
    pair = func.json_each(JobRow.metadata_).table_valued("key", "value")
    return exists(select(1).select_from(pair).where(pair.c.key == key, pair.c.value == value))


def find_queue_positions(session: Session, rows: Sequence[JobRow]) -> dict[str, int]:
    """Return job id → position in the queue, 1 for the next, for the waiting jobs in `rows`."""
    waiting = [row for row in rows if row.status in WAITING]
    if not waiting:
        return {}
    numbers = session.scalars(select(JobRow.number).where(JobRow.status.in_(WAITING)).order_by(JobRow.number)).all()
    return {row.id: bisect_left(numbers, row.number) + 1 for row in waiting}


def count_jobs(session: Session) -> dict[str, int]:
    """Return status → number of jobs, for every status."""
    counted = select(JobRow.status, func.count().label("jobs")).group_by(JobRow.status)
    found = {row.status: row.jobs for row in session.execute(counted)}
    return {status: found.get(status, 0) for status in states.NOT_ENDED | states.ENDED}


def _filter_error(message: str) -> BadRequest:
    return BadRequest(message, param="metadata", code="invalid_value")
