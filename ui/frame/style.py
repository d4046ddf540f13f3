"""How the pages look: theme, style sheet, and the JavaScript that has to run in the browser.

Everything is local: the system's fonts are used, and nothing is fetched from another host.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from ui.html.templates import render
from ui.words.i18n import TEXTS, Language, text

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
         "WenQuanYi Micro Hei", "sans-serif")  # fmt: skip
MONOSPACE_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

_BROWSER_JS = Path(__file__).with_name("browser.js").read_text("utf-8")
HEAD = str(render("frame/templates/head.html", "en", script=_BROWSER_JS))
"""The head of every page: viewport, icon, script."""

# Icon buttons get their names here, for screen readers and tooltips.
_SIGNS = {"tl-theme": "header.theme"}

KEY_JS = """(key, ...others) => {
  tuneloop.keepKey(key);
  return [key, ...others];
}"""
THEME_JS = "() => tuneloop.switchTheme()"
ADDRESS_JS = "query => { tuneloop.address(query); }"

_FRAME = Path(__file__).parent
STYLESHEETS = (
    _FRAME / "styles" / "shared.css",
    _FRAME / "styles" / "live.css",
    *sorted((_FRAME.parent / "pages").glob("*/*.css")),
)
"""Shared styles come first, so that a page's own style sheet can override them."""


def title(page: str, language: Language) -> str:
    """Return the page's title in the browser's tab and history."""
    return f"{text(language, f'{page}.title')} · tuneloop"


def language_js(page: str) -> str:
    """Return JavaScript that switches the language of what the browser itself manages."""
    return f"""(language, ...others) => {{
  tuneloop.translate(language, {_names(page)});
  return [language, ...others];
}}"""


def open_js(page: str) -> str:
    """Return JavaScript for a page's opening: reports language, the tab's key, query, and stored state."""
    return f"(_language, _key, _opened, session) => [...tuneloop.open('{page}', {_names(page)}), session]"


def _names(page: str) -> str:
    """Return JSON by language: the page's title, and the names of icon buttons by id."""
    signs = {spoken: {sign: texts[key] for sign, key in _SIGNS.items()} for spoken, texts in TEXTS.items()}
    return json.dumps({spoken: {"title": title(page, spoken), "signs": signs[spoken]} for spoken in TEXTS})


def keep_js(page: str) -> str:
    """Return JavaScript that stores a page's state, a JSON text."""
    return f"value => {{ tuneloop.keep('{page}', value); }}"


def keep_fields_js(page: str, names: Sequence[str]) -> str:
    """Return JavaScript that stores the values of inputs under their names."""
    return f"(...values) => {{ tuneloop.keepFields('{page}', {json.dumps(list(names))}, values); }}"


def theme() -> gr.themes.Base:
    """Return Gradio's base theme with our colors and the system's fonts."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=list(FONTS),
        font_mono=list(MONOSPACE_FONTS),
    ).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        block_label_text_weight="500",
        block_shadow="none",
        body_text_color_subdued="*neutral_500",
        button_cancel_background_fill="*neutral_700",
        button_cancel_background_fill_hover="*neutral_800",
        button_cancel_text_color="white",
    )
