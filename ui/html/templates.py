"""HTML from Jinja2 templates, which stand in the folder of the page that they are of. Everything put in is escaped.

A template is given the language's words as `t("key", name=value)`. What pages share is in `macros.html`.
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


def coded(words: str) -> Markup:
    """The words, escaped; what stands between backticks is set as code."""
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
    environment.filters["coded"] = coded
    return environment


_TEMPLATES = _environment()


def render(template: str, language: Language = "en", **values: object) -> Markup:
    """The template's HTML, such as `pages/rate/templates/heading.html` with these values in it.

    language: of the words that `t` gives; a template without words of its own needs none.

    Raises:
        jinja2.UndefinedError: the template names a value that it isn't given.
    """
    return Markup(_TEMPLATES.get_template(template).render(t=partial(text, language), language=language, **values))  # noqa: S704 (autoescape is on)
