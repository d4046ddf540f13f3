"""HTML from Jinja2 templates, which are in the folder of their page. All values are escaped.

A template gets the language's texts with `t("key", name=value)`. Shared macros are in `macros.html`.
Knows nothing of HTTP, Gradio, or any page's state.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ui.words.i18n import Language, text

_UI = Path(__file__).parents[1]


def mark_code(words: str) -> Markup:
    """Return the escaped text, with text between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(words))))  # noqa: S704 (escaped right here)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_UI),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters["mark_code"] = mark_code
    return environment


_TEMPLATES = _environment()


def render(template: str, language: Language = "en", **values: object) -> Markup:
    """Return the HTML of a template, such as `pages/rate/templates/heading.html`, with these values.

    language: of the texts from `t`; not needed by templates without texts.

    Raises:
        jinja2.UndefinedError: the template uses a value that is missing.
    """
    return Markup(_TEMPLATES.get_template(template).render(t=partial(text, language), language=language, **values))  # noqa: S704 (autoescape is on)
