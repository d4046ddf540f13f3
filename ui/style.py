"""How the pages look: theme, style sheet, and the little JavaScript that only the browser can do.

Everything is local: fonts are those of the reader's system, and nothing is fetched from another host.
"""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr

from ui.i18n import TEXTS

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
         "WenQuanYi Micro Hei", "sans-serif")  # fmt: skip
MONOSPACE_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' "
    "rx='8' fill='%234f46e5'/%3E%3Cpath d='M16 16c-3-5-9-5-9 0s6 5 9 0 9-5 9 0-6 5-9 0z' fill='none' stroke='white' "
    "stroke-width='2.6'/%3E%3C/svg%3E"
)
HEAD = f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="{_ICON}">'

# Buttons that show a sign alone get their names here, for screen readers and as tooltips.
_SIGNS = {"tl-theme": "header.theme", "tl-refresh": "models.refresh"}
_NAMES = json.dumps({spoken: {sign: texts[key] for sign, key in _SIGNS.items()} for spoken, texts in TEXTS.items()})
_APPLY_LANGUAGE = f"""
  document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
  for (const [id, name] of Object.entries({_NAMES}[language])) {{
    const button = document.getElementById(id);
    if (button) {{ button.title = name; button.ariaLabel = name; }}
  }}"""

# The browser remembers language and theme; the key only until the tab is closed.
OPEN_JS = f"""(_language, _key) => {{
  const dark = localStorage.getItem('tuneloop.dark');
  if (dark !== null) document.body.classList.toggle('dark', dark === 'true');
  const known = (navigator.languages || [navigator.language]).find(name => /^(zh|en)/i.test(name)) || 'en';
  const kept = localStorage.getItem('tuneloop.language');
  const language = ['en', 'zh'].includes(kept) ? kept : known.slice(0, 2).toLowerCase();{_APPLY_LANGUAGE}
  document.getElementById('tl-prompt').addEventListener('keydown', event => {{
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) document.getElementById('tl-send')?.click();
  }});
  return [language, sessionStorage.getItem('tuneloop.api_key') || ''];
}}"""
LANGUAGE_JS = f"""(language, ...others) => {{
  localStorage.setItem('tuneloop.language', language);{_APPLY_LANGUAGE}
  return [language, ...others];
}}"""
KEY_JS = """(key, ...others) => {
  sessionStorage.setItem('tuneloop.api_key', key);
  return [key, ...others];
}"""
THEME_JS = "() => localStorage.setItem('tuneloop.dark', document.body.classList.toggle('dark'))"

STYLESHEET = Path(__file__).with_name("pages.css")


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
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_600",
        block_label_text_weight="500",
        block_shadow="none",
        body_text_color_subdued="*neutral_500",
        button_cancel_background_fill="*neutral_700",
        button_cancel_background_fill_hover="*neutral_800",
        button_cancel_text_color="white",
    )
