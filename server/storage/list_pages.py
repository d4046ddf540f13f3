"""OpenAI's list object: a page with `first_id`, `last_id` and `has_more`, which the SDK's pagers follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from server.storage.tables import Base
from server.wire.errors import BadRequest

RowT = TypeVar("RowT", bound=Base)
"""A table with an `id` and a `number` that grows in the order of insertion."""


def fetch_page(
    session: Session,
    table: type[RowT],
    *where: ColumnElement[bool],
    after: str | None,
    limit: int,
    visible: ColumnElement[bool] | None = None,
    ascending: bool = False,
) -> tuple[Sequence[RowT], bool]:
    """Return at most `limit` rows after the row with the id `after`, newest first, and whether there are more.

    visible: a further condition on the rows of the page, but not on `after`, which may have been deleted since: a
    client that deletes the rows of one page can still ask for the next.

    Raises:
        BadRequest: `after` is no id of such a row.
    """
    columns: Any = table
    query = select(table).where(*where)
    if visible is not None:
        query = query.where(visible)
    query = query.order_by(columns.number if ascending else columns.number.desc())
    if after is not None:
        number = session.scalar(select(columns.number).where(columns.id == after, *where))
        if number is None:
            raise BadRequest(
                f"after={after[:200]!r} isn't an id in this list. Pass the last id of the previous page.",
                code="invalid_cursor",
                param="after",
            )
        query = query.where(columns.number > number if ascending else columns.number < number)
    rows = session.scalars(query.limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def build_list_page(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """Return `items` as a page of a list."""
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
