"""A model's card: state, lineage, report, and actions.

Knows nothing of HTTP or Gradio.
"""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from ui.html.templates import render
from ui.pages.models.calls import Row
from ui.pages.models.report import tiles
from ui.pages.models.state import ModelsSession
from ui.pages.models.tree import TONES, short_name
from ui.words.i18n import Language


def card(session: ModelsSession, version: Row) -> Markup:
    """Return the version's card."""
    language, model, state = session.language, str(version["model"]), version["state"]
    parent, adapter_id = version.get("parent"), version.get("adapter_id")
    return render(
        "pages/models/templates/card.html",
        language,
        version=version,
        tone=TONES.get(state, "soft"),
        born=date(version["created_at"]) if version.get("created_at") else None,
        chain=_chain(session, version),
        word=_word(language, version),
        tiles=tiles(session, version),
        job=version.get("job"),
        files=version.get("files") or {},
        votes=version.get("ratings"),
        beside=f"{parent},{model}" if parent in session.found.served else None,
        archive=_archive(adapter_id) if adapter_id and state in ("served", "waiting") else None,
        archive_name=re.sub(r"[^A-Za-z0-9.-]+", "_", model) + ".tar.gz",
        is_deletable=adapter_id and state != "training" and version["kind"] != "base",
        held_by=", ".join(version.get("aliases", [])),
    )


def _archive(adapter_id: str) -> str:
    return f"/v1/adapters/{quote(adapter_id, safe='')}/archive"


def date(unix_s: Any) -> str:
    """Return a readable time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_s)) if isinstance(unix_s, int | float) else "–"


def _chain(session: ModelsSession, version: Row) -> list[tuple[str, str]]:
    """Return the chain from the base to the model's parent: full and short names."""
    versions, steps = session.found.versions, [version]
    while (parent := versions.get(str(steps[-1]["parent"]))) and parent not in steps:
        steps.append(parent)
    return [(step["model"], _word(session.language, step)) for step in steps[:0:-1]]


def _word(language: Language, version: Row) -> str:
    return " ".join(short_name(language, version)).strip()
