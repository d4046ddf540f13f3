"""The training page's open job: state, progress, curves, what health says, events, checkpoints, and what to do next.

Every foreign word is escaped. Knows nothing of HTTP or Gradio.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

from ui.html.charts.curves import Mark, Point, Words, loss_chart, small_chart
from ui.html.markup import button, coded, figures_list, refusal_box, said
from ui.pages.data.report import named
from ui.pages.train.jobs import model_of, status
from ui.pages.train.state import OpenJob, TrainSession, state_of
from ui.words.i18n import Language, text

MOST_MESSAGES = 200
"""Events that are listed; the curves are drawn from all."""
PANELS = ("reward_margin", "reward_accuracy", "learning_rate", "tokens_per_second")
_SIGNS = {"info": "ℹ", "warning": "⚠", "error": "✗"}
_SEVERITIES = {"info": "", "warning": "data-warn", "error": "data-bad"}


def job(session: TrainSession) -> str:
    """State, progress and buttons; why it failed, or what it made."""
    opened, language = session.open_job, session.language
    if opened is None or opened.job is None:
        return '<span data-job=""></span>'  # the sign that the page has been opened, for `train.js`
    told = opened.job
    top = (
        f'<div class="live-row live-spread"><h2 class="live-h2 data-filename" id="train-job" tabindex="-1">'
        f'{escape(model_of(told))}</h2><div class="live-row">{_buttons(session, opened)}</div></div>'
    )
    return (
        f'<section class="live-card" data-job="{escape(opened.id)}">{top}<div class="live-row">{status(language, told)}'
        f'<span class="tl-muted">{escape(opened.id)}</span></div>{_progress(language, opened)}{_end(language, told)}'
        f"{_facts(session, told)}</section>"
    )


def _buttons(session: TrainSession, opened: OpenJob) -> str:
    language, state = session.language, state_of(opened.job or {"status": ""})
    changes = {"validating_files": ("cancel",), "queued": ("pause", "cancel"), "running": ("pause", "cancel"),
               "pausing": ("cancel",), "paused": ("resume", "cancel")}.get(state, ())  # fmt: skip
    shown = ""
    for change in changes:
        kind = "live-small live-danger" if change == "cancel" else "live-small"
        one = button(language, f"train.{change}", change, kind=kind, disabled=opened.changing, job=opened.id)
        if change == "cancel":
            one = one.replace("<button", f'<button data-confirm="{said(language, "train.cancel_sure")}"', 1)
        shown += one
    return shown + button(language, "data.close", "close", kind="live-small")


def _progress(language: Language, opened: OpenJob) -> str:
    if opened.progress is None:
        return ""
    done, whole = opened.progress
    words = said(language, "train.step_of", done=f"{done:,}", whole=f"{whole:,}")
    return (
        f'<p id="train-steps" class="train-steps">{words}</p><progress class="live-bar" value="{done}" '
        f'max="{max(whole, 1)}" aria-labelledby="train-steps"></progress>'
    )


def _end(language: Language, told: Mapping[str, Any]) -> str:
    state = state_of(told)
    if state == "failed":
        error = told.get("error") or {}
        at = f" ({error['param']})" if error.get("param") else ""
        box = refusal_box(language, "train.failed", f"{error.get('message') or '?'}{at}")
        return f'{box}<p class="tl-muted train-next">{said(language, "train.failed_next")}</p>'
    if state == "paused":
        return f'<p class="tl-notice">{said(language, "train.paused_words")}</p>'
    if state != "succeeded" or not told["fine_tuned_model"]:
        return ""
    compare = _compare_link(
        language, "train.compare", str(told["model"]), str(told["fine_tuned_model"]), "live-primary"
    )
    card = escape(urlencode({"model": told["fine_tuned_model"]}))
    models = f'<a class="live-button" href="models?{card}">{said(language, "train.to_models")}</a>'
    return (
        f'<div class="train-done" role="status"><p>✓ {said(language, "train.succeeded")}</p>'
        f'<div class="live-row train-send">{compare}{models}</div></div>'
    )


def _compare_link(language: Language, key: str, first: str, second: str, kind: str) -> str:
    query = escape(urlencode({"models": f"{first},{second}"}))
    return f'<a class="live-button {kind}" href="./?{query}">{said(language, key)}</a>'


def _facts(session: TrainSession, told: Mapping[str, Any]) -> str:
    language = session.language
    files = {file["id"]: file["filename"] for file in session.files}
    method = ((told.get("tuneloop") or {}).get("method") or {}).get("type") or "?"
    chosen = ", ".join(f"{name} {value}" for name, value in told["hyperparameters"].items())
    settings = ", ".join(
        f"{name} {value}" for name, value in ((told.get("tuneloop") or {}).get("settings") or {}).items()
    )
    pairs = [
        ("train.from", str(told["model"])),
        ("train.training_file", str(files.get(told["training_file"], told["training_file"]))),
        ("train.method", named(language, "data.method", method)),
        ("train.hyperparameters", chosen),
        ("train.settings", settings),
        ("train.tokens", f"{told['trained_tokens']:,}" if told["trained_tokens"] else ""),
    ]
    return figures_list((said(language, key), escape(value)) for key, value in pairs if value)


def curves(session: TrainSession) -> str:
    """The loss with what health says; below it the other metrics, where there are any."""
    opened, language = session.open_job, session.language
    if opened is None or opened.job is None:
        return ""
    training, validation = opened.points("train_loss"), opened.points("full_valid_loss")
    if not training and not validation:
        waiting = opened.goes_on
        return (
            f'<section class="live-card"><p class="tl-muted">{said(language, "train.no_curve")}</p></section>'
            if waiting
            else ""
        )
    findings = [one for one in opened.findings if one["data"].get("severity") != "info"]
    marks = [
        Mark(int(one["data"]["step"]), str(one["data"].get("code", "")).replace("_", " "))
        for one in findings
        if isinstance(one["data"].get("step"), int)
    ]
    whole = (opened.progress or (0, 0))[1]
    words = _words(language, "train.loss", _summary(language, training, validation))
    panels = "".join(_panel(language, name, opened.points(name)) for name in PANELS)
    return (
        f'<section class="live-card">{loss_chart(training, validation, marks, words, whole)}{_health(language, opened)}'
        f'<details class="train-more" id="train-panels"><summary>{said(language, "train.panels")}</summary>'
        f'<div class="train-panels">{panels}</div></details></section>'
    )


def _panel(language: Language, name: str, points: Sequence[Point]) -> str:
    if not points:
        return ""
    title = text(language, f"train.{name}")
    return small_chart(points, _words(language, f"train.{name}", f"{title}: {points[0][1]:.4g} → {points[-1][1]:.4g}"))


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


def _health(language: Language, opened: OpenJob) -> str:
    rows = "".join(
        f'<li><span class="data-chip {_SEVERITIES.get(one["data"]["severity"], "")}">'
        f"{_SIGNS.get(one['data']['severity'], '')} "
        f"{escape(str(one['data'].get('code', '')).replace('_', ' '))}</span> "
        f"{coded(one['message'])} {_remedy(one)}</li>"
        for one in opened.findings
    )
    title = said(language, "train.health")
    return f'<h3 class="data-h3">{title}</h3><ul class="train-health">{rows}</ul>' if rows else ""


def _remedy(event: Mapping[str, Any]) -> str:
    remedy = str(event["data"].get("remedy") or "")
    return "" if not remedy or remedy in event["message"] else f"<b>{coded(remedy)}</b>"


def history(session: TrainSession) -> str:
    """Checkpoints that are served, and the events in words, newest first."""
    opened, language = session.open_job, session.language
    if opened is None or opened.job is None:
        return ""
    messages = [event for event in reversed(opened.events) if event["type"] != "metrics"][:MOST_MESSAGES]
    rows = "".join(_event(event) for event in messages)
    events = (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "train.events")}</h2>'
        f'<ol class="train-events" tabindex="0" aria-label="{said(language, "train.events")}">{rows}</ol></section>'
    )
    shown = _checkpoints(language, opened, opened.job) + (events if rows else "")
    return f'<div class="train-stack">{shown}</div>' if shown else ""


def _event(event: Mapping[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(event["created_at"]))
    kind = {"warn": "data-warn", "error": "data-bad"}.get(event["level"], "")
    sign = {"warn": "⚠ ", "error": "✗ "}.get(event["level"], "")
    return (
        f'<li class="train-event {kind}"><time>{clock}</time><span dir="auto">{sign}{coded(event["message"])}</span>'
        "</li>"
    )


def _checkpoints(language: Language, opened: OpenJob, told: Mapping[str, Any]) -> str:
    if not opened.checkpoints:
        return ""
    rows = "".join(_checkpoint(language, one, told) for one in opened.checkpoints)
    numbers = "".join(
        f'<th scope="col" class="live-number">{said(language, f"train.{name}")}</th>'
        for name in ("step", "train_loss", "valid_loss")
    )
    others = "".join(f'<th scope="col">{said(language, f"train.{name}")}</th>' for name in ("checkpoint", "actions"))
    return (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "train.checkpoints")}</h2>'
        f'<div class="live-scroll" tabindex="0" role="region" aria-label="{said(language, "train.checkpoints")}">'
        f'<table class="live-table"><thead><tr>{numbers}{others}</tr></thead><tbody>{rows}</tbody></table></div>'
        "</section>"
    )


def _checkpoint(language: Language, one: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    metrics, name = one["metrics"], str(one["fine_tuned_model_checkpoint"])
    losses = (metrics.get("train_loss"), metrics.get("full_valid_loss"))
    cells = "".join(f'<td class="live-number">{"–" if value is None else f"{value:.4g}"}</td>' for value in losses)
    link = _compare_link(language, "train.compare_short", str(told["model"]), name, "live-small")
    return (
        f'<tr><td class="live-number">{one["step_number"]:,}</td>{cells}<td class="live-name">{escape(name)}</td>'
        f"<td>{link}</td></tr>"
    )
