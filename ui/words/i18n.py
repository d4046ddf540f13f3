"""Every word on the pages, in English and 中文.

Joins the `texts` of each page's folder and what pages share, and chooses one text by key; `docs/style.md` says how they
are worded. Knows nothing of components; values put into a text are plain text too, escaped by whoever writes HTML.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ui.words import shared

Language = Literal["en", "zh"]
_PAGES = Path(__file__).parents[1] / "pages"


def _joined() -> dict[Language, dict[str, str]]:
    joined: dict[Language, dict[str, str]] = {"en": {}, "zh": {}}
    pages = sorted(texts.parent.name for texts in _PAGES.glob("*/texts.py"))
    for texts in (shared, *(importlib.import_module(f"ui.pages.{page}.texts") for page in pages)):
        joined["en"] |= texts.ENGLISH
        joined["zh"] |= texts.CHINESE
    return joined


TEXTS: Mapping[Language, Mapping[str, str]] = _joined()


def text(language: Language, key: str, **values: object) -> str:
    """The text under `key`, with `{names}` in it replaced by `values`.

    Raises:
        KeyError: no such key, or a value that the text asks for is missing.
    """
    words = TEXTS[language][key]
    return words.format(**values) if values else words
