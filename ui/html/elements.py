"""HTML that all pages share: top bar, notices, problems; sizes and times as text."""

from __future__ import annotations

from markupsafe import Markup

from ui.html.templates import render
from ui.server_client import Problem, Readiness
from ui.words.i18n import Language, text

_GB, _MB, _KB = 1e9, 1e6, 1e3
PAGES = ("compare", "rate", "campaigns", "leaderboard", "data", "train", "models", "keys")
"""The links in the top bar, in order; each page's name is its path, the first is at the root."""


def top(language: Language, page: str) -> Markup:
    """Return the product's name and relative links to the pages, so that the pages can be mounted anywhere."""
    return render("html/top.html", language, page=page, pages=PAGES)


def problem_box(problem: Problem, language: Language) -> Markup:
    """Return what went wrong and what to do, with the server's message below."""
    return render("html/problem.html", language, problem=problem)


def notice(key: str, language: Language) -> Markup:
    """Return a notice of one sentence that the user should act on."""
    return render("html/notice.html", language, key=key)


def readiness(state: Readiness, language: Language) -> Markup:
    """Return a banner while the engine doesn't answer; otherwise ''."""
    return Markup() if state == "ready" else render("html/readiness.html", language, state=state)


def empty_state(language: Language, *, has_base: bool) -> Markup:
    """Return how to get a tuned model, for a server without one."""
    return render("html/empty_state.html", language, has_base=has_base)


def bytes_words(count: float) -> str:
    """Return a size in decimal units: `640 MB`, `1.9 GB`."""
    if count >= _GB:
        return f"{count / _GB:.2f} GB"
    if count >= _MB:
        return f"{count / _MB:.1f} MB" if count < 10 * _MB else f"{count / _MB:.0f} MB"
    return f"{count / _KB:.1f} kB" if count >= _KB else f"{count:.0f} B"


def duration_words(language: Language, seconds: float) -> str:
    """Return a duration with two digits: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return text(language, "time.seconds", n=f"{max(1, seconds):.0f}")
    if seconds < 5400:
        return text(language, "time.minutes", n=f"{seconds / 60:.0f}")
    return text(language, "time.hours", n=f"{seconds / 3600:.1f}")


def ago_words(language: Language, seconds: float) -> str:
    """Return how long ago: `just now`, `5 min ago`."""
    if seconds < 45:
        return text(language, "time.now")
    if seconds < 86_400:
        return text(language, "time.ago", time=duration_words(language, seconds))
    return text(language, "time.days_ago", n=f"{seconds / 86_400:.0f}")
