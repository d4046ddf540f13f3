"""Small pieces of HTML that the pages for data and training share: escaped texts, chips, buttons, sizes, durations.

Every value goes through `escape`. Knows nothing of HTTP, Gradio, or any page's state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ui.words.i18n import Language, text

_GB, _MB, _KB = 1e9, 1e6, 1e3


def said(language: Language, key: str, **values: object) -> str:
    """A text, escaped."""
    return escape(text(language, key, **values))


def coded(words: str) -> str:
    """The words, escaped; what stands between backticks is set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words))


def button(language: Language, key: str, do: str, *, kind: str = "", disabled: bool = False, **told: object) -> str:
    """A button that makes the action `do` with `told`; `kind` are further CSS classes. See `ui.frame.live`."""
    return (
        f'<button type="button" class="live-button {kind}" data-do="{escape(do)}"{_told(told)}'
        f"{' disabled' if disabled else ''}>{said(language, key)}</button>"
    )


def _told(told: Mapping[str, object]) -> str:
    return "".join(f' data-{name}="{escape(str(value))}"' for name, value in told.items())


def chip(words: str, kind: str = "") -> str:
    """A short word in a pill; `words` is HTML. kind: good, warn, bad, or nothing."""
    return f'<span class="data-chip {f"data-{kind}" if kind else ""}">{words}</span>'


def options(choices: Iterable[tuple[str, str]], chosen: str) -> str:
    """The options of a select: (value, words) each, words not escaped yet."""
    return "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(words)}</option>'
        for value, words in choices
    )


def bytes_words(count: float) -> str:
    """A size in decimal units: `640 MB`, `1.9 GB`."""
    if count >= _GB:
        return f"{count / _GB:.2f} GB"
    if count >= _MB:
        return f"{count / _MB:.1f} MB" if count < 10 * _MB else f"{count / _MB:.0f} MB"
    return f"{count / _KB:.1f} kB" if count >= _KB else f"{count:.0f} B"


def duration_words(language: Language, seconds: float) -> str:
    """About how long, to two figures: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return text(language, "time.seconds", n=f"{max(1, seconds):.0f}")
    if seconds < 5400:
        return text(language, "time.minutes", n=f"{seconds / 60:.0f}")
    return text(language, "time.hours", n=f"{seconds / 3600:.1f}")


def ago_words(language: Language, seconds: float) -> str:
    """How long ago: `just now`, `5 min ago`."""
    if seconds < 45:
        return text(language, "time.now")
    if seconds < 86_400:
        return text(language, "time.ago", time=duration_words(language, seconds))
    return text(language, "time.days_ago", n=f"{seconds / 86_400:.0f}")


def working(language: Language, key: str) -> str:
    """That something is being done."""
    return f'<p class="data-working" role="status"><span class="tl-dot"></span>{said(language, key)}</p>'


def figures_list(pairs: Iterable[tuple[str, str]]) -> str:
    """Name and figure, one beside the other; both are HTML."""
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return f'<dl class="data-figures">{rows}</dl>'


def refusal_box(language: Language, title_key: str, message: str, **values: Any) -> str:
    """Why something was refused: our own heading, the server's own words under it, line breaks kept."""
    return (
        f'<div class="tl-problem" role="alert"><p>{said(language, title_key, **values)}</p>'
        f'<p class="tl-detail data-lines">{coded(message)}</p></div>'
    )


def listing(label: str, columns: Sequence[str], rows: str, *, box: str, table: str) -> str:
    """A table in a box that scrolls, by keyboard too. All words and rows are HTML already; box, table: CSS classes."""
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    return (
        f'<div class="{box}" tabindex="0" role="region" aria-label="{label}"><table class="live-table {table}">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
