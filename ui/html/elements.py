"""Draws what all pages share as HTML: the top bar, notices, problems.

Whatever a model, a reader or the server wrote goes through `escape` and is shown as
text, line breaks kept. Knows nothing of Gradio and HTTP.
"""

from __future__ import annotations

import re
from html import escape

from ui.server_client import Problem, Readiness
from ui.words.i18n import Language, text

PAGES = ("compare", "rate", "campaigns", "leaderboard", "data", "train", "models", "keys")
"""The links in the top bar, in their order; each page's name is its path, the first stands on the root."""


def top(language: Language, page: str) -> str:
    """The product's name and the links to the pages; relative, so that the pages may be mounted anywhere."""
    links = "".join(
        f'<li><a href="{"./" if name == PAGES[0] else name}"{" aria-current=page" if name == page else ""}>'
        f"{escape(text(language, f'nav.{name}'))}</a></li>"
        for name in PAGES
    )
    return (
        f'<a class="tl-skip" href="#tl-content">{escape(text(language, "nav.skip"))}</a>'
        '<div class="tl-top"><div class="tl-brand"><span class="tl-logo" aria-hidden="true">∞</span>'
        '<span class="tl-name">tuneloop</span></div>'
        f'<nav class="tl-nav" aria-label="{escape(text(language, "nav.label"))}"><ul>{links}</ul></nav></div>'
    )


def problem_box(problem: Problem, language: Language) -> str:
    """What went wrong and what to do, with the server's own words under it."""
    friendly = _with_code(text(language, f"error.{problem.kind}"))
    said = f"{escape(text(language, 'error.detail'))} {escape(problem.detail)}"
    detail = f'<p class="tl-detail">{said}</p>' if problem.detail else ""
    return f'<div class="tl-problem" role="alert"><p>{friendly}</p>{detail}</div>'


def notice(key: str, language: Language) -> str:
    """One sentence that the reader should act on."""
    return f'<div class="tl-notice" role="status">{_with_code(text(language, key))}</div>'


def readiness(state: Readiness, language: Language) -> str:
    """The banner while the engine doesn't answer; empty when it does."""
    if state == "ready":
        return ""
    dot = '<span class="tl-dot"></span>' if state == "starting" else ""
    command = "" if state == "starting" else "<pre>tuneloop up</pre>"
    words = escape(text(language, f"notice.{state}"))
    return f'<div class="tl-notice tl-{state}" role="status"><p>{dot}{words}</p>{command}</div>'


def empty_state(language: Language, *, has_base: bool) -> str:
    """How to get a tuned model, for a server that has none yet."""
    steps = (
        ("train", "tuneloop train CONFIG.yaml"),
        ("add", "tuneloop adapters add ADAPTER_DIR"),
        ("demo", "make demo"),
    )
    upload = f'<p><a class="live-button live-primary" href="data">{escape(text(language, "empty.upload"))}</a></p>'
    rows = "".join(
        f"<li><p>{escape(text(language, f'empty.{key}'))}</p>{upload if key == 'train' else ''}"
        f"<pre>{escape(command)}</pre></li>"
        for key, command in steps
    )
    title = text(language, "empty.title" if has_base else "empty.no_models")
    return (
        f'<div class="tl-empty-state"><h2>{escape(title)}</h2><p>{escape(text(language, "empty.intro"))}</p>'
        f'<ol>{rows}</ol><p class="tl-muted">{escape(text(language, "empty.after"))}</p></div>'
    )


def _with_code(words: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words))
