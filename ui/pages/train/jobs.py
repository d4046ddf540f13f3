"""The list of jobs on the training page, with their states."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ui.html.elements import ago_words, duration_words
from ui.html.templates import render
from ui.pages.data.report import label
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
    """Return the list, newest first; if it is empty, what it is for."""
    language, now = session.language, time.time()
    if session.jobs is None:
        return ""
    shown = [
        (job["id"], model_of(job), status(language, job), job["model"], ago_words(language, now - job["created_at"]))
        for job in session.jobs
    ]
    open_id = session.open_job.id if session.open_job else None
    return render("pages/train/templates/jobs.html", language, jobs=shown, open_id=open_id)


def model_of(job: Mapping[str, Any]) -> str:
    """Return the tuned model's current or future name."""
    return str(job["fine_tuned_model"] or (job.get("tuneloop") or {}).get("fine_tuned_model") or job["id"])


def status(language: Language, job: Mapping[str, Any]) -> tuple[str, str]:
    """Return the state with the place in the queue or the time left, and the kind of its chip."""
    state = state_of(job)
    words = [label(language, "train.state", state)]
    place = (job.get("tuneloop") or {}).get("queue_position")
    if place:
        words.append(text(language, "train.place", n=place))
    if left := left_s(job):
        words.append(text(language, "train.left", time=duration_words(language, left)))
    return f"{SIGNS.get(state, '')} {' · '.join(words)}", KINDS.get(state, "")


def left_s(job: Mapping[str, Any]) -> float | None:
    """Return the seconds to the estimated end of a running job."""
    finish = job.get("estimated_finish")
    return max(1.0, finish - time.time()) if finish and state_of(job) == "running" else None
