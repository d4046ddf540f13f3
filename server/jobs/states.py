"""All changes of a job's status, each a conditional UPDATE: of two conflicting changes, the second fails. Its events.

This module defines which status may follow which; the runner makes the processes follow the rows.
https://platform.openai.com/docs/api-reference/fine-tuning
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, CursorResult, and_, case, exists, select, update
from sqlalchemy.orm import Session

from server.jobs.webhooks import outbox
from server.storage.tables import JobEventRow, JobRow, is_id, new_id, now_s
from server.wire.errors import Conflict, NotFound

Level = Literal["info", "warn", "error"]
VALIDATED = "Files validated, moving job to queued state"
"""The event of a job whose files needn't be checked again."""
ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""The final statuses."""
NOT_ENDED = frozenset({"validating_files", "queued", "running", "paused"})


def pause(session: Session, job_id: str) -> JobRow:
    """Pause the job, at once or after its process has written a checkpoint. Pausing twice changes nothing.

    Raises:
        NotFound: there is no such job.
        Conflict: it has ended.
    """
    read(session, job_id, lock=True)
    if change(session, job_id, {"validating_files", "queued"}, status="paused"):
        add_event(session, job_id, "Job paused")
    elif change(session, job_id, {"running"}, JobRow.pause_requested.is_(False), pause_requested=True):
        add_event(session, job_id, "Pausing the job after the next checkpoint")
    return _read_unended(session, job_id, "paused")


def resume(session: Session, job_id: str) -> JobRow:
    """Put the job back at its position in the queue. Resuming one that isn't paused changes nothing.

    Raises:
        NotFound: there is no such job.
        Conflict: it has ended.
    """
    read(session, job_id, lock=True)
    back = case((_was_validated(job_id), "queued"), else_="validating_files")
    if change(session, job_id, {"paused"}, status=back, pause_requested=False) or change(
        session, job_id, {"running"}, JobRow.pause_requested.is_(True), pause_requested=False
    ):
        add_event(session, job_id, "Job resumed")
    return _read_unended(session, job_id, "resumed")


def cancel(session: Session, job_id: str) -> JobRow:
    """Cancel the job at once and for good; its process is ended afterwards. Cancelling twice changes nothing.

    Raises:
        NotFound: there is no such job.
        Conflict: it has succeeded or failed.
    """
    read(session, job_id)
    if end(session, job_id, "cancelled"):
        add_event(session, job_id, "Job cancelled")
    job = read(session, job_id)
    if job.status != "cancelled":
        raise _too_late_error(job, "cancelled")
    return job


def end(session: Session, job_id: str, status: str, **values: Any) -> bool:
    """End the job with this status and enqueue its webhooks; return whether it changed.

    Only a running job can succeed: one that was just paused or cancelled has no result.
    """
    from_ = {"running"} if status == "succeeded" else NOT_ENDED
    values = {"finished_at": now_s(), "estimated_finish": None, "pause_requested": False} | values
    if not change(session, job_id, from_, status=status, **values):
        return False
    outbox.enqueue(session, f"fine_tuning.job.{status}", job_id)
    return True


def fail(session: Session, job_id: str, code: str, message: str, param: str | None = None) -> bool:
    """Fail the job for this reason; return whether it changed."""
    if not end(session, job_id, "failed", error={"code": code, "message": message, "param": param}):
        return False
    add_event(session, job_id, message, level="error", data={"code": code, "param": param})
    return True


def mark_validated(session: Session, job_id: str) -> bool:
    """Queue the job after its files were checked; return whether it changed."""
    return change_with_event(session, job_id, {"validating_files"}, VALIDATED, status="queued")


def claim(session: Session, job_id: str) -> bool:
    """Set the job running; return whether the caller is the one to run it."""
    # The UPDATE itself can't tell whether it ran before; only the claimer changes `started_at`.
    first = session.scalar(select(JobRow.started_at).where(JobRow.id == job_id)) is None
    message = "Fine-tuning job started" if first else "Fine-tuning job resumed from its last checkpoint"
    started: dict[str, Any] = {"started_at": now_s()} if first else {}
    return change_with_event(session, job_id, {"queued"}, message, status="running", **started)


def mark_stopped(session: Session, job_id: str, step: int) -> bool:
    """Set a job paused whose process was stopped after this many steps; return whether it is. If it was resumed
    meanwhile it is requeued, unless it has ended."""
    message = f"Job paused at step {step}" if step else "Job paused before its first step"
    pause_requested = JobRow.pause_requested.is_(True)
    paused: dict[str, Any] = {"status": "paused", "pause_requested": False, "estimated_finish": None}
    if change_with_event(session, job_id, {"running"}, message, pause_requested, **paused):
        return True
    requeue(session, job_id, "The job is queued again and will resume from its last checkpoint")
    return False


def requeue(session: Session, job_id: str, message: str, *, level: Level = "info", **values: Any) -> bool:
    """Put a running job back at its position in the queue, or pause it if that was requested; return whether it
    changed."""
    status = case((JobRow.pause_requested.is_(True), "paused"), else_="queued")
    values = {"status": status, "pause_requested": False, "estimated_finish": None} | values
    return change_with_event(session, job_id, {"running"}, message, level=level, **values)


def change_with_event(
    session: Session,
    job_id: str,
    from_: Collection[str],
    message: str,
    *conditions: ColumnElement[bool],
    level: Level = "info",
    **values: Any,
) -> bool:
    """Call `change`, and add an event if it succeeds."""
    if not change(session, job_id, from_, *conditions, **values):
        return False
    add_event(session, job_id, message, level=level)
    return True


def change(
    session: Session, job_id: str, from_: Collection[str], *conditions: ColumnElement[bool], **values: Any
) -> bool:
    """Set these values if the job has one of these statuses and meets the conditions; return whether it did."""
    where = and_(JobRow.id == job_id, JobRow.status.in_(sorted(from_)), *conditions)
    statement = update(JobRow).where(where).values(**values).execution_options(synchronize_session=False)
    return cast("CursorResult[Any]", session.execute(statement)).rowcount == 1


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


def read(session: Session, job_id: str, *, lock: bool = False) -> JobRow:
    """Return the current row of the job.

    lock: lock the row until the transaction ends. On PostgreSQL a change could come between two UPDATEs of one request,
        and neither would match. SQLite has no FOR UPDATE and needs none: the first UPDATE locks the whole database.

    Raises:
        NotFound: there is no such job.
    """
    query = select(JobRow).where(JobRow.id == job_id).execution_options(populate_existing=True)
    job = session.scalar(query.with_for_update() if lock else query) if is_id(job_id) else None
    if job is None:
        raise NotFound(
            f"Could not find fine tune: {job_id[:100]!r}. GET /v1/fine_tuning/jobs lists the jobs.",
            code="fine_tune_not_found",
            param="fine_tune_id",
        )
    return job


def _read_unended(session: Session, job_id: str, action: str) -> JobRow:
    job = read(session, job_id)
    if job.status in ENDED:
        raise _too_late_error(job, action)
    return job


def _too_late_error(job: JobRow, action: str) -> Conflict:
    return Conflict(
        f"The fine-tuning job {job.id} has {_ENDED_AS[job.status]} and can no longer be {action}. Create a new job "
        "to train again.",
        code="fine_tuning_job_ended",
        param="fine_tune_id",
    )


_ENDED_AS = {"succeeded": "succeeded", "failed": "failed", "cancelled": "been cancelled"}


def _was_validated(job_id: str) -> ColumnElement[bool]:
    return exists().where(JobEventRow.job_id == job_id, JobEventRow.message == VALIDATED)
