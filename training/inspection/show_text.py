"""Rendered rows as text for people: what is trained, what is context, what is cut off. Knows no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from rich.text import Text

Part = Literal["trained", "context", "cut", "rejected"]
_STYLES: dict[Part, str] = {
    "trained": "bold black on green",
    "context": "dim",
    "cut": "strike dim red",
    "rejected": "bold black on red",
}
_MARKS: dict[Part, tuple[str, str]] = {
    "trained": ("⟦", "⟧"),
    "context": ("", ""),
    "cut": ("✂", "✂"),
    "rejected": ("⟪", "⟫"),
}


@dataclass(frozen=True)
class Shown:
    """Tokens, and which part each belongs to."""

    ids: Sequence[int]
    parts: Sequence[Part]

    def count(self, part: Part) -> int:
        """Tokens of that part."""
        return list(self.parts).count(part)


def legend(*, colored: bool) -> Text:
    """What the colours, or the marks, mean."""
    text = Text()
    named: tuple[tuple[Part, str], ...] = (
        ("trained", "trained"),
        ("context", "context"),
        ("cut", "cut off"),
        ("rejected", "the worse answer"),
    )
    for part, name in named:
        _append(text, name, part, colored=colored)
        text.append("  ")
    return text


def as_text(shown: Shown, tokenizer: Any, *, tokens: bool, colored: bool) -> Text:
    """The text that the tokens spell; with `tokens`, a bar between each two.

    In colour when `colored`, else with marks: ⟦trained⟧, ✂cut off✂, ⟪the worse answer⟫.
    """
    text, start = Text(), 0
    for part, group in groupby(shown.parts):
        end = start + len(list(group))
        _append(text, _spelled(shown.ids, start, end, tokenizer, tokens=tokens), part, colored=colored)
        start = end
    return text


def plain(said: str, part: Part, *, colored: bool) -> Text:
    """`said` as one part."""
    text = Text()
    _append(text, said, part, colored=colored)
    return text


def _append(text: Text, said: str, part: Part, *, colored: bool) -> None:
    if colored:
        text.append(said, style=_STYLES[part])
    else:
        opening, closing = _MARKS[part]
        text.append(f"{opening}{said}{closing}")


def _spelled(ids: Sequence[int], start: int, end: int, tokenizer: Any, *, tokens: bool) -> str:
    if tokens:
        bar = "│" if end < len(ids) else ""
        return "│".join(_token(token, tokenizer) for token in ids[start:end]) + bar
    # Decoded with what comes before: some tokenizers drop the space at the beginning of a text.
    before = tokenizer.decode(ids[:start])
    return str(tokenizer.decode(ids[:end]))[len(before) :]


def _token(token: int, tokenizer: Any) -> str:
    """What one token spells; its name where that is only a part of a character."""
    name = str(tokenizer.convert_ids_to_tokens(token))
    if "▁" in name:
        return name.replace("▁", " ")
    spelled = str(tokenizer.decode([token]))
    return name if "\N{REPLACEMENT CHARACTER}" in spelled or not spelled else spelled.replace("\n", "⏎\n")
