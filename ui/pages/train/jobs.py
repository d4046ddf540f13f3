"""The training page's list of jobs: which wait, which run, how they ended. Every foreign word is escaped."""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape
from typing import Any

from ui.html.markup import ago_words, button, chip, duration_words, listing, said
from ui.pages.data.report import named
from ui.pages.train.state import TrainSession, state_of
from ui.words.i18n import Language, text

KINDS = {
    "validating_files": "", "queued": "", "running": "warn", "pausing": "warn", "paused": "warn",
    "succeeded": "good", "failed": "bad", "cancelled": "",
}  # fmt: skip
SIGNS = {
    "validating_files": "…", "queued": "…", "running": "▶", "pausing": "▶", "paused": "⏸",
    "succeeded": "✓", "failed": "✗", "cancelled": "■",
}  # fmt: skip


def jobs(session: TrainSession) -> str:
    """The list, newest first; what it is for where there is none."""
    language = session.language
    if session.jobs is None:
        return ""
    heading = f'<h2 class="live-h2">{said(language, "train.jobs")}</h2>'
    if not session.jobs:
        return (
            f'<section class="live-card">{heading}<p class="tl-muted">{said(language, "train.no_jobs")}</p></section>'
        )
    names = ("job", "status", "from", "created", "actions")
    rows = "".join(_row(session, job) for job in session.jobs)
    listed = listing(said(language, "train.jobs"), [said(language, f"train.{name}") for name in names], rows,
                     box="train-list", table="train-table")  # fmt: skip
    return f'<section class="live-card">{heading}{listed}</section>'


def _row(session: TrainSession, job: Mapping[str, Any]) -> str:
    language = session.language
    is_open = session.open_job is not None and session.open_job.id == job["id"]
    open_ = button(language, "data.opened" if is_open else "data.open", "open", kind="live-small", job=job["id"])
    if is_open:
        open_ = open_.replace("<button", '<button aria-current="true"', 1)
    return (
        f'<tr{" class=data-open" if is_open else ""}><td class="live-name">{escape(model_of(job))}</td>'
        f"<td>{status(language, job)}</td><td class='live-name'>{escape(str(job['model']))}</td>"
        f"<td>{escape(ago_words(language, time.time() - job['created_at']))}</td><td>{open_}</td></tr>"
    )


def model_of(job: Mapping[str, Any]) -> str:
    """The name that the tuned model has, or will have."""
    return str(job["fine_tuned_model"] or (job.get("tuneloop") or {}).get("fine_tuned_model") or job["id"])


def status(language: Language, job: Mapping[str, Any]) -> str:
    """The state in a pill, with the place in the queue or the time that is left."""
    state = state_of(job)
    words = [escape(named(language, "train.state", state))]
    place = (job.get("tuneloop") or {}).get("queue_position")
    if place:
        words.append(said(language, "train.place", n=place))
    if left := left_s(job):
        words.append(escape(text(language, "train.left", time=duration_words(language, left))))
    return chip(f"{SIGNS.get(state, '')} {' · '.join(words)}", KINDS.get(state, ""))


def left_s(job: Mapping[str, Any]) -> float | None:
    """Seconds to the estimated end of a running job."""
    finish = job.get("estimated_finish")
    return max(1.0, finish - time.time()) if finish and state_of(job) == "running" else None
