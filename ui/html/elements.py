"""Draws what all pages share as HTML: the top bar, notices, problems. Knows nothing of Gradio and HTTP."""

from __future__ import annotations

from markupsafe import Markup

from ui.html.templates import render
from ui.server_client import Problem, Readiness
from ui.words.i18n import Language

PAGES = ("compare", "rate", "campaigns", "leaderboard", "data", "train", "models", "keys")
"""The links in the top bar, in their order; each page's name is its path, the first stands on the root."""


def top(language: Language, page: str) -> Markup:
    """The product's name and the links to the pages; relative, so that the pages may be mounted anywhere."""
    return render("html/top.html", language, page=page, pages=PAGES)


def problem_box(problem: Problem, language: Language) -> Markup:
    """What went wrong and what to do, with the server's own words under it."""
    return render("html/problem.html", language, problem=problem)


def notice(key: str, language: Language) -> Markup:
    """One sentence that the reader should act on."""
    return render("html/notice.html", language, key=key)


def readiness(state: Readiness, language: Language) -> Markup:
    """The banner while the engine doesn't answer; empty when it does."""
    return Markup() if state == "ready" else render("html/readiness.html", language, state=state)


def empty_state(language: Language, *, has_base: bool) -> Markup:
    """How to get a tuned model, for a server that has none yet."""
    return render("html/empty_state.html", language, has_base=has_base)
