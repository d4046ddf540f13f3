"""OpenAI's list object: a page with `first_id`, `last_id` and `has_more`, which the SDK's pagers follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from server.storage.tables import Base
from server.wire.errors import BadRequest

RowT = TypeVar("RowT", bound=Base)
"""A table with a `number`, in whose order its rows came, and an `id`."""


def page_of(
    session: Session,
    table: type[RowT],
    *where: ColumnElement[bool],
    after: str | None,
    limit: int,
    shown: ColumnElement[bool] | None = None,
    ascending: bool = False,
) -> tuple[Sequence[RowT], bool]:
    """At most `limit` rows that follow the row with the id `after`, newest first, and whether there are more.

    shown: what else holds for the rows of a page, but needn't hold for `after`, which may be gone since: who deletes
    what a page has shown can go on to the next.

    Raises:
        BadRequest: `after` is no id of such a row.
    """
    columns: Any = table
    query = select(table).where(*where)
    if shown is not None:
        query = query.where(shown)
    query = query.order_by(columns.number if ascending else columns.number.desc())
    if after is not None:
        number = session.scalar(select(columns.number).where(columns.id == after, *where))
        if number is None:
            raise BadRequest(
                f"There is nothing with the id {after[:200]!r} to go on after. Give the last id of the page before.",
                code="invalid_cursor",
                param="after",
            )
        query = query.where(columns.number > number if ascending else columns.number < number)
    rows = session.scalars(query.limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def list_page(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """The page that holds `items`."""
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
