"""One model's card: what it is, how it was made, what was measured, and what can be done with it.

Every foreign word is escaped here. Knows nothing of HTTP or Gradio.
"""

from __future__ import annotations

import re
import time
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

from ui.pages.models.calls import Row
from ui.pages.models.report import recipe_of, tiles
from ui.pages.models.state import ModelsSession
from ui.pages.models.tree import said, short_name, state_sign
from ui.words.i18n import Language


def card(session: ModelsSession) -> str:
    """The chosen model's card; a word where there is no model at all."""
    version, language = session.version, session.language
    if version is None:
        return f'<p class="tl-muted">{said(language, "models.none")}</p>'
    report = version.get("report") or {}
    parts = [
        _title(language, version),
        _reason(language, version),
        _chain(session, version),
        tiles(session, version, report),
        _made_from(language, version),
        recipe_of(language, report),
        _actions(session, version),
    ]
    label = escape(str(version["model"]))
    return f'<section class="live-card models-card" aria-label="{label}">{"".join(parts)}</section>'


def date(unix_s: Any) -> str:
    """A time for people, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_s)) if isinstance(unix_s, int | float) else "–"


def _title(language: Language, version: Row) -> str:
    kind, state = said(language, f"models.kind.{version['kind']}"), state_sign(language, version["state"])
    born = f" · {date(version['created_at'])}" if version.get("created_at") else ""
    return (
        f'<h2 class="models-name live-name" dir="auto">{escape(str(version["model"]))}</h2>'
        f'<p class="tl-muted">{kind}{born} {state}</p>'
    )


def _reason(language: Language, version: Row) -> str:
    if not version.get("reason"):
        return ""
    key = "models.refused" if version["state"] == "refused" else "models.failed"
    why = f'<p class="tl-detail">{escape(str(version["reason"]))}</p>'
    return f'<div class="tl-problem"><p>{said(language, key)}</p>{why}</div>'


def _chain(session: ModelsSession, version: Row) -> str:
    """The way from the base, each step a button."""
    language, versions = session.language, session.found.versions
    steps = [version]
    while (parent := versions.get(str(steps[-1]["parent"]))) and parent not in steps:
        steps.append(parent)
    if len(steps) < 2:
        return ""
    links = "".join(
        f'<li><button type="button" class="models-step" id="models-step-{place}" data-do="choose" '
        f'data-model="{escape(str(step["model"]))}">{_short(language, step)}</button></li>'
        for place, step in enumerate(steps[:0:-1])
    )
    here, label = _short(language, version), said(language, "models.chain")
    return f'<ol class="models-chain" aria-label="{label}">{links}<li aria-current="true">{here}</li></ol>'


def _short(language: Language, version: Row) -> str:
    return escape(" ".join(short_name(language, version)).strip())


def _made_from(language: Language, version: Row) -> str:
    rows = []
    if job := version.get("job"):
        link = f'<a href="train?{urlencode({"job": job["id"]})}">{escape(job["id"])}</a>'
        rows.append((said(language, "models.job"), f"{link} · {escape(str(job['method']))}"))
    for role, file in (version.get("files") or {}).items():
        rows.append((said(language, f"models.file.{role}"), _file(language, file)))
    if votes := version.get("ratings"):
        rows.append((said(language, "models.votes"), _votes(language, votes)))
    if not rows:
        return ""
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f'<h3>{said(language, "models.made_from")}</h3><dl class="models-facts">{listed}</dl>'


def _file(language: Language, file: Row) -> str:
    if file["deleted"]:
        return f'{escape(file["id"])} <span class="tl-muted">{said(language, "models.file.deleted")}</span>'
    return f'<a href="data?{urlencode({"file": file["id"]})}"><bdi>{escape(file["filename"] or file["id"])}</bdi></a>'


def _votes(language: Language, votes: Row) -> str:
    told = said(language, "models.votes.note", votes=votes.get("votes", "–"), pairs=votes.get("pairs", "–"))
    campaign = votes.get("campaign")
    where = urlencode({"campaign": campaign}) if campaign else ""
    link = f'<a href="leaderboard{"?" + where if where else ""}">{said(language, "models.votes.board")}</a>'
    return f"{told} · {link}"


def _actions(session: ModelsSession, version: Row) -> str:
    language, name = session.language, str(version["model"])
    if version["state"] == "gone":
        return f'<p class="tl-muted">{said(language, "models.gone_note")}</p>'
    buttons = []
    if version["state"] == "served":
        buttons += _links(session, version)
    if version.get("adapter_id") and version["state"] in ("served", "waiting"):
        buttons.append(_download(language, name, version["adapter_id"]))
    deletable = version.get("adapter_id") and version["state"] != "training" and version["kind"] != "base"
    removal = _removal(session, version) if deletable else ("", "")
    return f'<div class="live-row models-actions">{"".join(buttons)}{removal[0]}</div>{removal[1]}'


def _download(language: Language, model: str, adapter_id: str) -> str:
    path = f"/v1/adapters/{quote(adapter_id, safe='')}/archive"
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", model) + ".tar.gz"
    return (
        f'<button type="button" class="live-button" id="models-download" data-download="{escape(path)}" '
        f'data-name="{name}">{said(language, "models.download")}</button>'
    )


def _links(session: ModelsSession, version: Row) -> list[str]:
    language, name, parent = session.language, str(version["model"]), version.get("parent")
    links = []
    if parent in session.found.served:
        href = "./?" + urlencode({"models": f"{parent},{name}"})
        links.append(
            f'<a class="live-button live-primary" href="{escape(href)}">{said(language, "models.compare")}</a>'
        )
    href = "train?" + urlencode({"model": name})
    links.append(f'<a class="live-button" href="{escape(href)}">{said(language, "models.train_on")}</a>')
    return links


def _removal(session: ModelsSession, version: Row) -> tuple[str, str]:
    """The button, and why it is shut where an alias stands for the model."""
    language, aliases = session.language, version.get("aliases", [])
    question = said(language, "models.delete.sure", model=version["model"])
    shut = ' disabled aria-describedby="models-held"' if aliases else ""
    button = (
        f'<button type="button" class="live-button live-danger" id="models-delete" data-do="delete" '
        f'data-model="{escape(str(version["model"]))}" data-confirm="{question}"{shut}>'
        f"{said(language, 'models.delete')}</button>"
    )
    if not aliases:
        return button, ""
    return (
        button,
        f'<p class="live-hint" id="models-held">{said(language, "models.held", alias=", ".join(aliases))}</p>',
    )
