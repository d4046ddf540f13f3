"""Every word on the pages, in English and 中文.

Joins the modules of `ui.texts`, one for each page, and chooses one text by key; `docs/style.md` says how they are
worded. Knows nothing of components; values put into a text are plain text too, escaped by whoever writes HTML.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Literal

import ui.texts

Language = Literal["en", "zh"]


def _joined() -> dict[Language, dict[str, str]]:
    joined: dict[Language, dict[str, str]] = {"en": {}, "zh": {}}
    for module in pkgutil.iter_modules(ui.texts.__path__, "ui.texts."):
        texts = importlib.import_module(module.name)
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
