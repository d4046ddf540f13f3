"""All texts of the pages, in English and 中文.

Joins the `texts` of each page's folder and the shared ones, and returns a text by key; `docs/style.md` has the rules
for wording. Knows nothing of components; values in a text are plain text, escaped when HTML is rendered.
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
    """Return the text of `key`, with `{names}` replaced by `values`.

    Raises:
        KeyError: the key doesn't exist, or a value for the text is missing.
    """
    words = TEXTS[language][key]
    return words.format(**values) if values else words
