"""The open job on the training page: state, progress, curves, findings, events, checkpoints, actions.

Knows nothing of HTTP or Gradio.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ui.html.charts.curves import Mark, Point, Words, loss_chart, small_chart
from ui.html.templates import render
from ui.pages.data.report import label
from ui.pages.train.jobs import model_of, status
from ui.pages.train.state import OpenJob, TrainSession, state_of
from ui.words.i18n import Language, text

MOST_MESSAGES = 200
"""Maximum number of events in the list; the curves use all."""
PANELS = ("reward_margin", "reward_accuracy", "learning_rate", "tokens_per_second")
_CHANGES = {
    "validating_files": ("cancel",), "queued": ("pause", "cancel"), "running": ("pause", "cancel"),
    "pausing": ("cancel",), "paused": ("resume", "cancel"),
}  # fmt: skip
_SEVERITIES = {"info": ("ℹ", ""), "warning": ("⚠", "warn"), "error": ("✗", "bad")}
_LEVELS = {"warn": ("data-warn", "⚠ "), "error": ("data-bad", "✗ ")}


def job(session: TrainSession) -> str:
    """Return state, progress and buttons; why it failed, or its result."""
    opened, language = session.open_job, session.language
    if opened is None or opened.job is None:
        return render("pages/train/templates/no_job.html", language)
    job, state = opened.job, state_of(opened.job)
    error = job.get("error") or {}
    at = f" ({error['param']})" if error.get("param") else ""
    return render(
        "pages/train/templates/job.html",
        language,
        opened=opened,
        job=job,
        model=model_of(job),
        state=state,
        changes=_CHANGES.get(state, ()),
        status=status(language, job),
        failure=f"{error.get('message') or '?'}{at}",
        facts=_facts(session, job),
    )


def _facts(session: TrainSession, job: Mapping[str, Any]) -> list[tuple[str, str]]:
    language, ours = session.language, job.get("tuneloop") or {}
    files = {file["id"]: file["filename"] for file in session.files}
    method = (ours.get("method") or {}).get("type") or "?"
    pairs = [
        ("train.from", str(job["model"])),
        ("train.training_file", str(files.get(job["training_file"], job["training_file"]))),
        ("train.method", label(language, "data.method", method)),
        ("train.hyperparameters", _listed(job["hyperparameters"])),
        ("train.settings", _listed(ours.get("settings") or {})),
        ("train.tokens", f"{job['trained_tokens']:,}" if job["trained_tokens"] else ""),
    ]
    return [(text(language, key), value) for key, value in pairs if value]


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def curves(session: TrainSession) -> str:
    """Return the loss with findings, and below it the other metrics, if there are any."""
    opened, language = session.open_job, session.language
    if opened is None or opened.job is None:
        return ""
    training, validation = opened.points("train_loss"), opened.points("full_valid_loss")
    if not training and not validation and not opened.goes_on:
        return ""
    return render(
        "pages/train/templates/curves.html",
        language,
        chart=_chart(language, opened, training, validation) if training or validation else None,
        findings=[_finding(one) for one in opened.findings],
        panels=[_panel(language, name, points) for name in PANELS if (points := opened.points(name))],
    )


def _chart(language: Language, opened: OpenJob, training: Sequence[Point], validation: Sequence[Point]) -> Markup:
    marks = [
        Mark(one["data"]["step"], _code(one))
        for one in opened.findings
        if one["data"]["severity"] != "info" and isinstance(one["data"].get("step"), int)
    ]
    words = _words(language, "train.loss", _summary(language, training, validation))
    whole = (opened.progress or (0, 0))[1]
    return Markup(loss_chart(training, validation, marks, words, whole))  # noqa: S704 (escaped there)


def _panel(language: Language, name: str, points: Sequence[Point]) -> Markup:
    title = text(language, f"train.{name}")
    words = _words(language, f"train.{name}", f"{title}: {points[0][1]:.4g} → {points[-1][1]:.4g}")
    return Markup(small_chart(points, words))  # noqa: S704 (escaped there)


def _words(language: Language, name: str, summary: str) -> Words:
    return Words(
        name=text(language, name),
        training=text(language, "train.training"),
        validation=text(language, "train.validation"),
        step=text(language, "train.step"),
        summary=summary,
    )


def _summary(language: Language, training: Sequence[Point], validation: Sequence[Point]) -> str:
    parts = []
    if training:
        first, last = training[0], training[-1]
        values = {"first": f"{first[1]:.4g}", "last": f"{last[1]:.4g}", "step": last[0]}
        parts.append(text(language, "train.loss_told", **values))
    if validation:
        step, best = min(validation, key=lambda point: point[1])
        parts.append(text(language, "train.best_told", best=f"{best:.4g}", step=step))
    return " ".join(parts)


def _finding(event: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return text and kind of the chip, the message, and the remedy if the message doesn't contain it."""
    sign, kind = _SEVERITIES.get(event["data"]["severity"], ("", ""))
    remedy = str(event["data"].get("remedy") or "")
    return f"{sign} {_code(event)}", kind, event["message"], "" if remedy in event["message"] else remedy


def _code(event: Mapping[str, Any]) -> str:
    return str(event["data"].get("code", "")).replace("_", " ")


def history(session: TrainSession) -> str:
    """Return the served checkpoints, and the events as text, newest first."""
    opened = session.open_job
    if opened is None or opened.job is None:
        return ""
    events = [event for event in reversed(opened.events) if event["type"] != "metrics"][:MOST_MESSAGES]
    if not events and not opened.checkpoints:
        return ""
    return render(
        "pages/train/templates/history.html",
        session.language,
        events=[(_clock(one), *_LEVELS.get(one["level"], ("", "")), one["message"]) for one in events],
        checkpoints=[_checkpoint(one, opened.job) for one in opened.checkpoints],
    )


def _clock(event: Mapping[str, Any]) -> str:
    return time.strftime("%H:%M:%S", time.localtime(event["created_at"]))


def _checkpoint(one: Mapping[str, Any], job: Mapping[str, Any]) -> tuple[str, list[str], str]:
    """Return a checkpoint's name, step and losses, and the two models to compare."""
    name = str(one["fine_tuned_model_checkpoint"])
    losses = (one["metrics"].get(loss) for loss in ("train_loss", "full_valid_loss"))
    numbers = [f"{one['step_number']:,}", *("–" if loss is None else f"{loss:.4g}" for loss in losses)]
    return name, numbers, f"{job['model']},{name}"
