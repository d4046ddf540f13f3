"""Every change of a job's status, each one conditional UPDATE: whoever comes second finds that it is too late.

Owns which status may follow which. Knows neither processes nor files: the runner sees to it that what runs agrees with
what is written here. https://platform.openai.com/docs/api-reference/fine-tuning
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, and_, case, exists, select, update
from sqlalchemy.orm import Session

from server.jobs.events import Level, add_event
from server.jobs.webhooks import outbox
from server.storage.tables import JobEventRow, JobRow, is_id, now_s
from server.wire.errors import Conflict, NotFound

VALIDATED = "Files validated, moving job to queued state"
"""The event that says that a job's files needn't be looked at again."""
ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""The statuses that nothing leads out of."""
NOT_ENDED = frozenset({"validating_files", "queued", "running", "paused"})


def pause(session: Session, job_id: str) -> JobRow:
    """The job, which is paused, or will be once its process has written a checkpoint. Pausing twice changes nothing.

    Raises:
        NotFound: there is no such job.
        Conflict: it has ended.
    """
    read(session, job_id, hold=True)
    if change(session, job_id, {"validating_files", "queued"}, status="paused"):
        add_event(session, job_id, "Job paused")
    elif change(session, job_id, {"running"}, JobRow.pause_requested.is_(False), pause_requested=True):
        add_event(session, job_id, "Pausing the job once a checkpoint is written")
    return _not_ended(session, job_id, "paused")


def resume(session: Session, job_id: str) -> JobRow:
    """The job, back at its place in the queue. Resuming one that isn't paused changes nothing.

    Raises:
        NotFound: there is no such job.
        Conflict: it has ended.
    """
    read(session, job_id, hold=True)
    back = case((_was_validated(job_id), "queued"), else_="validating_files")
    if change(session, job_id, {"paused"}, status=back, pause_requested=False) or change(
        session, job_id, {"running"}, JobRow.pause_requested.is_(True), pause_requested=False
    ):
        add_event(session, job_id, "Job resumed")
    return _not_ended(session, job_id, "resumed")


def cancel(session: Session, job_id: str) -> JobRow:
    """The job, cancelled at once and for good; its process is ended after that. Cancelling twice changes nothing.

    Raises:
        NotFound: there is no such job.
        Conflict: it has succeeded or failed.
    """
    read(session, job_id)
    if end(session, job_id, "cancelled"):
        add_event(session, job_id, "Job cancelled")
    job = read(session, job_id)
    if job.status != "cancelled":
        raise _too_late(job, "cancelled")
    return job


def end(session: Session, job_id: str, status: str, **values: Any) -> bool:
    """Whether the job ended with this status just now; whoever waits for its end is told.

    Succeeding is for a running job alone: one that was paused or cancelled a moment ago has no result.
    """
    from_ = {"running"} if status == "succeeded" else NOT_ENDED
    values = {"finished_at": now_s(), "estimated_finish": None, "pause_requested": False} | values
    if not change(session, job_id, from_, status=status, **values):
        return False
    outbox.enqueue(session, f"fine_tuning.job.{status}", job_id)
    return True


def fail(session: Session, job_id: str, code: str, message: str, param: str | None = None) -> bool:
    """Whether the job failed just now, for this reason."""
    if not end(session, job_id, "failed", error={"code": code, "message": message, "param": param}):
        return False
    add_event(session, job_id, message, level="error", data={"code": code, "param": param})
    return True


def validated(session: Session, job_id: str) -> bool:
    """Whether the job moved into the queue just now."""
    return move(session, job_id, {"validating_files"}, VALIDATED, status="queued")


def claim(session: Session, job_id: str) -> bool:
    """Whether the job is running from now on, and the caller's to run."""
    # In the same UPDATE nobody can tell any more whether it ran before; nobody but the claimer changes `started_at`.
    first = session.scalar(select(JobRow.started_at).where(JobRow.id == job_id)) is None
    told = "Fine-tuning job started" if first else "Fine-tuning job started again, to go on from its last checkpoint"
    started: dict[str, Any] = {"started_at": now_s()} if first else {}
    return move(session, job_id, {"queued"}, told, status="running", **started)


def stopped(session: Session, job_id: str, step: int) -> bool:
    """Whether the job, whose process was stopped after this many steps, is paused now; else it was to go on after all,
    and is in the queue again, or has ended."""
    told = f"Job paused at step {step}" if step else "Job paused before its first step"
    asked = JobRow.pause_requested.is_(True)
    paused: dict[str, Any] = {"status": "paused", "pause_requested": False, "estimated_finish": None}
    if move(session, job_id, {"running"}, told, asked, **paused):
        return True
    requeue(session, job_id, "The job is back in the queue, to go on from its last checkpoint")
    return False


def requeue(session: Session, job_id: str, message: str, *, level: Level = "info", **values: Any) -> bool:
    """Whether the running job is back at its place in the queue; paused, where that was asked for meanwhile."""
    status = case((JobRow.pause_requested.is_(True), "paused"), else_="queued")
    values = {"status": status, "pause_requested": False, "estimated_finish": None} | values
    return move(session, job_id, {"running"}, message, level=level, **values)


def move(
    session: Session,
    job_id: str,
    from_: Collection[str],
    message: str,
    *conditions: ColumnElement[bool],
    level: Level = "info",
    **values: Any,
) -> bool:
    """`change`, and an event that says so."""
    if not change(session, job_id, from_, *conditions, **values):
        return False
    add_event(session, job_id, message, level=level)
    return True


def change(
    session: Session, job_id: str, from_: Collection[str], *conditions: ColumnElement[bool], **values: Any
) -> bool:
    """Whether the job had one of these statuses and met the conditions, and so has these values now."""
    where = and_(JobRow.id == job_id, JobRow.status.in_(sorted(from_)), *conditions)
    statement = update(JobRow).where(where).values(**values).execution_options(synchronize_session=False)
    return cast("CursorResult[Any]", session.execute(statement)).rowcount == 1


def read(session: Session, job_id: str, *, hold: bool = False) -> JobRow:
    """The job as it is now.

    hold: nobody else changes it until this transaction is over: on PostgreSQL a change could come between two UPDATEs
        of one request, and neither would meet it. SQLite knows no FOR UPDATE and needs none: there the first UPDATE
        holds the whole database.

    Raises:
        NotFound: there is no such job.
    """
    query = select(JobRow).where(JobRow.id == job_id).execution_options(populate_existing=True)
    job = session.scalar(query.with_for_update() if hold else query) if is_id(job_id) else None
    if job is None:
        raise NotFound(
            f"Could not find fine tune: {job_id[:100]!r}. GET /v1/fine_tuning/jobs lists the jobs.",
            code="fine_tune_not_found",
            param="fine_tune_id",
        )
    return job


def _not_ended(session: Session, job_id: str, wanted: str) -> JobRow:
    job = read(session, job_id)
    if job.status in ENDED:
        raise _too_late(job, wanted)
    return job


def _too_late(job: JobRow, wanted: str) -> Conflict:
    return Conflict(
        f"The fine-tuning job {job.id} has {_ENDED_AS[job.status]} and can't be {wanted} any more. "
        "Create a new job to train again.",
        code="fine_tuning_job_ended",
        param="fine_tune_id",
    )


_ENDED_AS = {"succeeded": "succeeded", "failed": "failed", "cancelled": "been cancelled"}


def _was_validated(job_id: str) -> ColumnElement[bool]:
    return exists().where(JobEventRow.job_id == job_id, JobEventRow.message == VALIDATED)
