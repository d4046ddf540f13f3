"""Job events. One function creates them all, so that they have the same form."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy.orm import Session

from server.storage.tables import JobEventRow, new_id, now_s

Level = Literal["info", "warn", "error"]


def add_event(
    session: Session,
    job_id: str,
    message: str,
    *,
    level: Level = "info",
    metrics: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    created_at: int | None = None,
) -> JobEventRow:
    """Add an event, visible once the transaction is committed, and return it.

    metrics: makes it an event of type `metrics` with these numbers as its data.
    created_at: Unix seconds. Default: now.
    """
    row = JobEventRow(
        id=new_id("ftevent-"),
        job_id=job_id,
        created_at=created_at or now_s(),
        level=level,
        type="message" if metrics is None else "metrics",
        message=message,
        data=data if metrics is None else metrics,
    )
    session.add(row)
    return row
