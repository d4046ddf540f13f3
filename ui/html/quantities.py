"""Sizes and times in words, as the pages for data and training show them. Escapes nothing: templates do."""

from __future__ import annotations

from ui.words.i18n import Language, text

_GB, _MB, _KB = 1e9, 1e6, 1e3


def bytes_words(count: float) -> str:
    """A size in decimal units: `640 MB`, `1.9 GB`."""
    if count >= _GB:
        return f"{count / _GB:.2f} GB"
    if count >= _MB:
        return f"{count / _MB:.1f} MB" if count < 10 * _MB else f"{count / _MB:.0f} MB"
    return f"{count / _KB:.1f} kB" if count >= _KB else f"{count:.0f} B"


def duration_words(language: Language, seconds: float) -> str:
    """About how long, to two figures: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return text(language, "time.seconds", n=f"{max(1, seconds):.0f}")
    if seconds < 5400:
        return text(language, "time.minutes", n=f"{seconds / 60:.0f}")
    return text(language, "time.hours", n=f"{seconds / 3600:.1f}")


def ago_words(language: Language, seconds: float) -> str:
    """How long ago: `just now`, `5 min ago`."""
    if seconds < 45:
        return text(language, "time.now")
    if seconds < 86_400:
        return text(language, "time.ago", time=duration_words(language, seconds))
    return text(language, "time.days_ago", n=f"{seconds / 86_400:.0f}")
