"""Rendered rows as text for people: what is trained, what is context, what is cut off. Knows no files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from rich.text import Text

from training.data.examples import Example, Message

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
    passed_over: frozenset[str] = frozenset()
    """What of the example the chat template doesn't render."""

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
    text = Text()
    for said, part in spelled_parts(shown, tokenizer, tokens=tokens):
        _append(text, said, part, colored=colored)
    return text


def spelled_parts(shown: Shown, tokenizer: Any, *, tokens: bool = False) -> Iterator[tuple[str, Part]]:
    """(text, part) of each run of tokens that are one part; with `tokens`, a bar between each two tokens."""
    start = 0
    for part, group in groupby(shown.parts):
        end = start + len(list(group))
        yield _spelled(shown.ids, start, end, tokenizer, tokens=tokens), part
        start = end


def said_parts(example: Example) -> Iterator[tuple[str, str, Part]]:
    """(who, what, part) as it stands in the file: what is learned as far as that can be told without a tokenizer."""
    for message in example.messages:
        is_answer = message.role == "assistant" and message.weight and not example.chosen
        yield message.role, _content(message), _part(is_answer, example.label)
    yield from (("preferred", _content(message), "trained") for message in example.chosen)
    yield from (("not preferred", _content(message), "rejected") for message in example.rejected)
    if example.prompt is not None:
        yield "prompt", example.prompt, "context"
    if example.completion is not None:
        yield "completion", example.completion, "trained"
    if example.text is not None:
        yield "text", example.text, "trained"


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


def _part(is_answer: object, label: bool | None) -> Part:
    if not is_answer:
        return "context"
    return "rejected" if label is False else "trained"


def _content(message: Message) -> str:
    """What was said, and the tools that were called."""
    calls = message.extra.get("tool_calls")
    return message.content + (json.dumps(calls, ensure_ascii=False) if calls else "")
