"""Ties components to their texts, so that one call puts a page into another language.

Owns which property of which component shows which key of `i18n`. Knows nothing of pages.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui.words.i18n import Language, text

Updates = dict[Any, Any]
"""Component → its `gr.update(…)`: what a handler returns to Gradio."""


def html(value: str = "", **properties: Any) -> Any:
    """A block of our own HTML, free of Gradio's prose styles and padding."""
    return gr.HTML(value, apply_default_css=False, elem_classes="tl-html", **properties)


class Captions:
    """The labels, placeholders and button texts of one page."""

    def __init__(self, language: Language) -> None:
        self._first_language = language
        self._keys: dict[Any, dict[str, str]] = {}

    def make(self, component_class: Any, keys: dict[str, str], **properties: Any) -> Any:
        """A component of that class whose properties named in `keys` show those texts, now and after each switch."""
        texts = {name: text(self._first_language, key) for name, key in keys.items()}
        component = component_class(**texts, **properties)
        self._keys[component] = keys
        return component

    @property
    def components(self) -> list[Any]:
        """Every component that `updates` names."""
        return list(self._keys)

    def updates(self, language: Language) -> Updates:
        """The same texts in another language."""
        return {
            component: gr.update(**{name: text(language, key) for name, key in keys.items()})
            for component, keys in self._keys.items()
        }


def merge_updates(*updates: Updates) -> Updates:
    """All updates in one; where several name one component, their properties come together, the later winning."""
    together: Updates = {}
    for part in updates:
        for component, update in part.items():
            together[component] = together.get(component, {}) | update
    return together
