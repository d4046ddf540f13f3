"""The data page's HTML, block by block, from the tab's state.

Every foreign word is escaped. Knows nothing of HTTP or Gradio; what its buttons and forms mean stands in `page`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ui.html import elements
from ui.html.markup import ago_words, button, bytes_words, chip, coded, listing, options, said, working
from ui.pages.data.report import named, report
from ui.pages.data.state import DataSession
from ui.words.i18n import Language

EXAMPLE_LINE = (
    '{"messages": [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "The keeper."}]}'
)
_STATUS = {"uploaded": "", "processed": "good", "error": "bad"}
_SIGNS = {"uploaded": "…", "processed": "✓", "error": "✗"}
_PARTS = ("trained", "rejected", "context", "cut")


def heading(language: Language) -> str:
    """Title and one sentence."""
    return (
        f'<h1 class="tl-title">{said(language, "data.title")}</h1><p class="tl-muted">'
        f"{said(language, 'data.intro')}</p>"
    )


def upload(language: Language) -> str:
    """Where files are dropped; `data.js` does the rest."""
    uploading = said(language, "data.uploading", name="\0").replace("\0", "<b></b>")
    return (
        f'<div class="data-drop"><p>{said(language, "data.drop")} '
        f'<label class="live-button live-primary" for="data-file">{said(language, "data.choose")}'
        f'<input type="file" id="data-file" class="live-hidden" accept=".jsonl,application/jsonl" multiple></label></p>'
        f'<p class="tl-muted">{said(language, "data.drop_hint")}</p>'
        f'<div class="data-progress" hidden><p id="data-uploading">{uploading}</p>'
        f'<progress class="live-bar" max="100" value="0" aria-labelledby="data-uploading"></progress></div></div>'
    )


def notice(session: DataSession) -> str:
    """What went wrong or was done."""
    problem = elements.problem_box(session.trouble, session.language) if session.trouble else ""
    return session.told + problem


def files(session: DataSession) -> str:
    """The list, or how to begin."""
    language = session.language
    if session.files is None:
        return ""
    top = (
        f'<div class="live-row live-spread"><h2 class="live-h2">{said(language, "data.files")}</h2>'
        f"{button(language, 'data.refresh', 'refresh', kind='live-small')}</div>"
    )
    if not session.files:
        return (
            f'<section class="live-card">{top}<div class="tl-empty-state"><h3>{said(language, "data.no_files")}</h3>'
            f"<p>{said(language, 'data.no_files_hint')}</p><pre>{escape(EXAMPLE_LINE)}</pre></div></section>"
        )
    names = ("name", "size", "when", "status", "actions")
    rows = "".join(_file_row(session, file) for file in session.files)
    listed = listing(said(language, "data.files"), [said(language, f"data.{name}") for name in names], rows,
                     box="live-scroll", table="data-table")  # fmt: skip
    return f'<section class="live-card">{top}{listed}</section>'


def _file_row(session: DataSession, file: Mapping[str, Any]) -> str:
    language, status, is_open = session.language, str(file["status"]), file["id"] == session.file_id
    shown = chip(f"{_SIGNS.get(status, '')} {escape(named(language, 'data.status', status))}", _STATUS.get(status, ""))
    sure = said(language, "data.delete_sure", name=file["filename"])
    delete = button(
        language, "data.delete", "delete", kind="live-small live-danger", file=file["id"], name=file["filename"]
    )
    delete = delete.replace("<button", f'<button data-confirm="{sure}"', 1)
    open_ = button(language, "data.opened" if is_open else "data.open", "open", kind="live-small", file=file["id"])
    if is_open:
        open_ = open_.replace("<button", '<button aria-current="true"', 1)
    train = "" if status == "error" else train_link(language, str(file["id"]))
    return (
        f'<tr{" class=data-open" if is_open else ""}><td class="live-name" dir="auto">{escape(file["filename"])}</td>'
        f"<td>{bytes_words(file['bytes'])}</td><td>{escape(ago_words(language, time.time() - file['created_at']))}</td>"
        f'<td>{shown}</td><td><div class="live-row data-actions">{open_}{train}{delete}</div></td></tr>'
    )


def train_link(language: Language, file_id: str) -> str:
    """To the training page, with this file chosen."""
    return f'<a class="live-button live-small" href="train?file={escape(file_id)}">{said(language, "data.train")}</a>'


def opened(session: DataSession) -> str:
    """The file that is open: in whose tokens, and its report."""
    language, file = session.language, session.file
    if file is None:
        return ""
    models = [("", named(language, "data", "count_none")), *((model.name, model.name) for model in session.models)]
    choice = (
        f'<form data-do="base" data-keep="data.base.{escape(file["id"])}" data-send><label class="live-label" '
        f'for="data-base">{said(language, "data.count_in")}</label><select class="live-select" id="data-base" '
        f'name="base">{options(models, session.base)}</select></form>'
    )
    train = "" if file["status"] == "error" else train_link(language, str(file["id"]))
    top = (
        f'<div class="live-row live-spread"><h2 class="live-h2 data-filename" dir="auto" tabindex="-1">'
        f"{escape(file['filename'])}</h2>"
        f'<div class="live-row">{train}{button(language, "data.close", "close", kind="live-small")}'
        f"</div></div>"
    )
    return (
        f'<section class="live-card" aria-busy="{str(session.inspecting).lower()}">{top}{choice}'
        f'<h3 class="data-h3">{said(language, "data.report")}</h3>{_report(session)}</section>'
    )


def _report(session: DataSession) -> str:
    if session.inspecting:
        return working(session.language, "data.working_tokens" if session.base else "data.working")
    if session.report_problem:
        return elements.problem_box(session.report_problem, session.language)
    return report(session.language, session.report) if session.report else ""


def examples(session: DataSession) -> str:
    """One page of examples with what is learned of them marked."""
    language, page = session.language, session.page
    if session.file is None or page is None:
        return ""
    shown = "".join(_example(language, one) for one in page["data"])
    shown = shown or f'<p class="tl-muted">{said(language, "data.no_examples")}</p>'
    return (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "data.preview")}</h2>{_legend(language)}'
        f'<div class="data-examples">{shown}</div>{_pager(session, page)}</section>'
    )


def _legend(language: Language) -> str:
    items = "".join(f"<li>{_marked(part, said(language, f'data.legend.{part}'))}</li>" for part in _PARTS)
    return f'<ul class="data-legend">{items}</ul>'


def _marked(part: str, words: str) -> str:
    """Brackets and lines beside the colours: ⟦learned⟧, ⟪worse⟫, cut off struck through."""
    tag = {"trained": "mark", "rejected": "mark", "cut": "s"}.get(part, "span")
    return f'<{tag} class="data-part-{part}">{words}</{tag}>'


def _example(language: Language, one: Mapping[str, Any]) -> str:
    line = said(language, "data.example_line", line="?" if one["line"] is None else one["line"])
    kind = "" if one["kind"] is None else f" · {escape(named(language, 'data.kind', one['kind']))}"
    error = f'<p class="data-bad" dir="auto">✗ {coded(one["error"])}</p>' if one["error"] else ""
    rows = "".join(_row(language, row, n, len(one["rows"])) for n, row in enumerate(one["rows"], 1))
    lost = ", ".join(named(language, "data.part", part) for part in one["not_rendered"])
    warning = f'<p class="data-warning">⚠ {said(language, "data.not_rendered")}: {escape(lost)}</p>' if lost else ""
    return f'<article class="data-example"><h3>{line}{kind}</h3>{rows}{warning}{error}</article>'


def _row(language: Language, row: Mapping[str, Any], n: int, of: int) -> str:
    told = [said(language, "data.row", n=n, of=of)] if of > 1 else []
    if row["tokens"] is not None:
        told.append(said(language, "data.tokens_words", tokens=row["tokens"], trained=row["trained_tokens"]))
    if row["cut_tokens"]:
        told.append(said(language, "data.cut_count", n=row["cut_tokens"]))
    figures = f'<p class="tl-muted">{" · ".join(told)}</p>' if told else ""
    if row["segments"] and row["segments"][0]["role"]:
        turns = "".join(_turn(language, segment) for segment in row["segments"])
        return f"{figures}{turns}"
    text = "".join(_segment(language, segment) for segment in row["segments"])
    return f'{figures}<div class="data-text" dir="auto">{text}</div>'


def _turn(language: Language, segment: Mapping[str, Any]) -> str:
    who = escape(named(language, "data.role", segment["role"]))
    return (
        f'<div class="data-turn"><b>{who}</b><div class="data-text" dir="auto">{_segment(language, segment)}</div>'
        "</div>"
    )


def _segment(language: Language, segment: Mapping[str, Any]) -> str:
    more = segment["left_out_chars"]
    rest = f' <i class="tl-muted">{said(language, "data.left_out", n=f"{more:,}")}</i>' if more else ""
    return _marked(segment["part"], escape(segment["text"])) + rest


def _pager(session: DataSession, page: Mapping[str, Any]) -> str:
    language, first = session.language, session.offset
    if not first and not page["has_more"]:
        return ""
    shown = said(language, "data.shown", first=first + 1, last=first + len(page["data"]))
    previous = button(language, "data.previous", "page", kind="live-small", disabled=not first, way="-1")
    following = button(language, "data.next", "page", kind="live-small", disabled=not page["has_more"], way="1")
    return f'<div class="live-row data-pager">{previous}<span class="tl-muted">{shown}</span>{following}</div>'


def counts_table(
    language: Language, title: str, counts: Mapping[str, int], samples: Mapping[str, Sequence[Any]]
) -> str:
    """How many rows for which reason, and where the first of them are."""
    if not counts:
        return ""
    rows = "".join(
        f"<tr><td>{escape(named(language, 'data.reason' if title != 'data.with_personal' else 'data.pii', name))}</td>"
        f'<td class="live-number">{count:,}</td>'
        f"<td>{', '.join(str(sample['line']) for sample in samples.get(name, ()))}</td></tr>"
        for name, count in counts.items()
    )
    names = "".join(
        f'<th scope="col">{said(language, key)}</th>' for key in ("data.reason", "data.rows", "data.first_lines")
    )
    return (
        f'<table class="live-table"><caption>{said(language, title)}</caption><thead><tr>{names}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
