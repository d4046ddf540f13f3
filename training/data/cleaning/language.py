"""Identifies the language of a text. Imports no torch; the model is part of the package `py3langid`, no download."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

FEWEST_LETTERS = 20
"""Letters below which the language of a text can't be told; each Chinese or Japanese character counts as three."""
_LONGEST = 1000
"""Maximum number of characters used: more only costs time."""
_LETTER = re.compile(r"[^\W\d_]")
_SIGN = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af\U00020000-\U0003ffff]")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


def known_languages() -> frozenset[str]:
    """Return the supported ISO 639-1 codes, such as `en`, `zh`, `de`."""
    return frozenset(_load_identifier().labels)


def identify_language(text: str) -> tuple[str, float] | None:
    """Return (code, confidence 0 to 1) of the most likely language of `text`; None if it is too short to tell.

    Fenced code is ignored. The classifier is that of Lui and Baldwin 2012, "langid.py".
    """
    words = _FENCED.sub(" ", text)[:_LONGEST] if "```" in text else text[:_LONGEST]
    letters = sum(1 for _ in _LETTER.finditer(words))
    if letters < FEWEST_LETTERS and letters + 2 * sum(1 for _ in _SIGN.finditer(words)) < FEWEST_LETTERS:
        return None
    language, confidence = _load_identifier().classify(words)
    return str(language), float(confidence)


@cache
def _load_identifier() -> Any:
    # Its model takes a second to load.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
