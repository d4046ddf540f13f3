"""How the pages look: theme, style sheet, and the little JavaScript that only the browser can do.

Everything is local: fonts are those of the reader's system, and nothing is fetched from another host.
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
"""What stands in every page's head: its width, its icon, our script."""

# Buttons that show a sign alone get their names here, for screen readers and as tooltips.
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
"""What all pages share comes first; a page's own sheet may overrule it."""


def title(page: str, language: Language) -> str:
    """What the browser shows as the page's title, on its tab and in its history."""
    return f"{text(language, f'{page}.title')} · tuneloop"


def language_js(page: str) -> str:
    """Puts what the browser itself holds of the page into the chosen language."""
    return f"""(language, ...others) => {{
  tuneloop.speak(language, {_names(page)});
  return [language, ...others];
}}"""


def open_js(page: str) -> str:
    """What the browser tells when a page opens: its language, the tab's key, the query and what was kept."""
    return f"(_language, _key, _opened, session) => [...tuneloop.open('{page}', {_names(page)}), session]"


def _names(page: str) -> str:
    """By language: the page's title, and the names of its signs by their ids; JSON."""
    signs = {spoken: {sign: texts[key] for sign, key in _SIGNS.items()} for spoken, texts in TEXTS.items()}
    return json.dumps({spoken: {"title": title(page, spoken), "signs": signs[spoken]} for spoken in TEXTS})


def keep_js(page: str) -> str:
    """Keeps a page's state, a JSON text."""
    return f"value => {{ tuneloop.keep('{page}', value); }}"


def keep_fields_js(page: str, names: Sequence[str]) -> str:
    """Keeps the values of inputs under their names."""
    return f"(...values) => {{ tuneloop.keepFields('{page}', {json.dumps(list(names))}, values); }}"


def theme() -> gr.themes.Base:
    """Gradio's base theme in our colours with the system's fonts."""
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
