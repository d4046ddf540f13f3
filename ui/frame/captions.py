"""Connects components to their texts, so that one call switches a page's language.

Owns which property of a component shows which key of `i18n`. Knows nothing of pages.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui.words.i18n import Language, text

Updates = dict[Any, Any]
"""Component → its `gr.update(…)`: what a handler returns to Gradio."""


def html(value: str = "", **properties: Any) -> Any:
    """Return a block for HTML without Gradio's prose styles and padding."""
    return gr.HTML(value, apply_default_css=False, elem_classes="tl-html", **properties)


class Captions:
    """The labels, placeholders and button texts of one page."""

    def __init__(self, language: Language) -> None:
        self._first_language = language
        self._keys: dict[Any, dict[str, str]] = {}

    def make(self, component_class: Any, keys: dict[str, str], **properties: Any) -> Any:
        """Return a component of this class; the properties in `keys` show these texts, in every language."""
        texts = {name: text(self._first_language, key) for name, key in keys.items()}
        component = component_class(**texts, **properties)
        self._keys[component] = keys
        return component

    @property
    def components(self) -> list[Any]:
        """The components that `updates` updates."""
        return list(self._keys)

    def updates(self, language: Language) -> Updates:
        """Return updates that show all texts in this language."""
        return {
            component: gr.update(**{name: text(language, key) for name, key in keys.items()})
            for component, keys in self._keys.items()
        }


def merge_updates(*updates: Updates) -> Updates:
    """Return all updates as one; a component's properties are combined, and later values win."""
    together: Updates = {}
    for part in updates:
        for component, update in part.items():
            together[component] = together.get(component, {}) | update
    return together
