"""The data page's HTML, block by block, from the tab's state.

Knows nothing of HTTP or Gradio; `page` defines what its buttons and forms do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from markupsafe import Markup

from ui.html import elements
from ui.html.elements import ago_words, bytes_words
from ui.html.templates import render
from ui.pages.data.report import label, report
from ui.pages.data.state import DataSession
from ui.server_client import Problem
from ui.words.i18n import Language, text

_KINDS = {"uploaded": "", "processed": "good", "error": "bad"}
_SIGNS = {"uploaded": "…", "processed": "✓", "error": "✗"}


def heading(language: Language) -> Markup:
    """Return title and introduction."""
    return render("pages/data/templates/heading.html", language)


def upload(language: Language) -> Markup:
    """Return the area for uploads."""
    return render("pages/data/templates/upload.html", language)


def message(language: Language, key: str, refusal: str | None = None, **values: object) -> Markup:
    """Return a message about the last action; with `refusal`, the server's message why it failed."""
    return render("pages/data/templates/message.html", language, words=text(language, key, **values), refusal=refusal)


def notice(session: DataSession) -> Markup:
    """Return what was done or went wrong."""
    return session.message + problem_box(session.language, session.trouble)


def problem_box(language: Language, problem: Problem | None) -> Markup:
    """Return what went wrong and what to do; '' without a problem."""
    return Markup(elements.problem_box(problem, language) if problem else "")  # noqa: S704 (escaped there)


def files(session: DataSession) -> str:
    """Return the list, or how to start."""
    if session.files is None:
        return ""
    shown = [{**file, **_words(session.language, file)} for file in session.files]
    return render("pages/data/templates/files.html", session.language, files=shown, open_id=session.file_id)


def _words(language: Language, file: Mapping[str, Any]) -> dict[str, str]:
    status = str(file["status"])
    return {
        "size": bytes_words(file["bytes"]),
        "ago": ago_words(language, time.time() - file["created_at"]),
        "state": f"{_SIGNS.get(status, '')} {label(language, 'data.status', status)}",
        "kind": _KINDS.get(status, ""),
    }


def opened(session: DataSession) -> str:
    """Return the open file: the base model for counting tokens, and its report."""
    language, file = session.language, session.file
    if file is None:
        return ""
    models = [("", label(language, "data", "count_none")), *((model.name, model.name) for model in session.models)]
    found = problem_box(language, session.report_problem)
    if session.report and not found:
        found = report(language, session.report)
    return render("pages/data/templates/opened.html", language, session=session, file=file, models=models, report=found)


def examples(session: DataSession) -> str:
    """Return one page of examples with the trained parts marked."""
    language, page = session.language, session.page
    if session.file is None or page is None:
        return ""
    return render(
        "pages/data/templates/examples.html",
        language,
        examples=[_example(language, one) for one in page["data"]],
        offset=session.offset,
        has_more=page["has_more"],
        label=partial(label, language),
    )


def _example(language: Language, one: Mapping[str, Any]) -> dict[str, Any]:
    title = text(language, "data.example_line", line="?" if one["line"] is None else one["line"])
    kind = "" if one["kind"] is None else f" · {label(language, 'data.kind', one['kind'])}"
    return {
        "title": f"{title}{kind}",
        "rows": [_row(language, row, n, len(one["rows"])) for n, row in enumerate(one["rows"], 1)],
        "lost": ", ".join(label(language, "data.part", part) for part in one["not_rendered"]),
        "error": one["error"],
    }


def _row(language: Language, row: Mapping[str, Any], n: int, of: int) -> dict[str, Any]:
    figures = [text(language, "data.row", n=n, of=of)] if of > 1 else []
    if row["tokens"] is not None:
        figures.append(text(language, "data.tokens_words", tokens=row["tokens"], trained=row["trained_tokens"]))
    if row["cut_tokens"]:
        figures.append(text(language, "data.cut_count", n=row["cut_tokens"]))
    segments = row["segments"]
    return {"figures": " · ".join(figures), "segments": segments, "is_chat": bool(segments and segments[0]["role"])}
