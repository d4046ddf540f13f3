"""Rendered rows as text for people: trained, context, cut off."""

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
class MarkedRow:
    """Tokens, and the part of each."""

    ids: Sequence[int]
    parts: Sequence[Part]
    omitted: frozenset[str] = frozenset()
    """What the chat template omits of the example."""

    def count(self, part: Part) -> int:
        """Return the number of tokens with that part."""
        return list(self.parts).count(part)


def make_legend(*, colored: bool) -> Text:
    """Return an explanation of the colours, or of the marks."""
    text = Text()
    named: tuple[tuple[Part, str], ...] = (
        ("trained", "trained"),
        ("context", "context"),
        ("cut", "cut off"),
        ("rejected", "the rejected answer"),
    )
    for part, name in named:
        _append(text, name, part, colored=colored)
        text.append("  ")
    return text


def format_row(shown: MarkedRow, tokenizer: Any, *, tokens: bool, colored: bool) -> Text:
    """Return the text of the tokens; with `tokens`, separated by bars.

    In colour when `colored`, else with marks: ⟦trained⟧, ✂cut off✂, ⟪the worse answer⟫.
    """
    text = Text()
    for run, part in split_row(shown, tokenizer, tokens=tokens):
        _append(text, run, part, colored=colored)
    return text


def split_row(shown: MarkedRow, tokenizer: Any, *, tokens: bool = False) -> Iterator[tuple[str, Part]]:
    """Yield (text, part) of each run of tokens with one part; with `tokens`, tokens are separated by bars."""
    start = 0
    for part, group in groupby(shown.parts):
        end = start + len(list(group))
        yield _decode_run(shown.ids, start, end, tokenizer, tokens=tokens), part
        start = end


def split_example(example: Example) -> Iterator[tuple[str, str, Part]]:
    """Yield (role, text, part) as in the file: trained text as far as known without a tokenizer."""
    for message in example.messages:
        is_answer = message.role == "assistant" and message.weight and not example.chosen
        yield message.role, _message_text(message), _part_of(is_answer, example.label)
    yield from (("preferred", _message_text(message), "trained") for message in example.chosen)
    yield from (("not preferred", _message_text(message), "rejected") for message in example.rejected)
    if example.prompt is not None:
        yield "prompt", example.prompt, "context"
    if example.completion is not None:
        yield "completion", example.completion, "trained"
    if example.text is not None:
        yield "text", example.text, "trained"


def format_part(content: str, part: Part, *, colored: bool) -> Text:
    """Return `content` as one part."""
    text = Text()
    _append(text, content, part, colored=colored)
    return text


def _append(text: Text, content: str, part: Part, *, colored: bool) -> None:
    if colored:
        text.append(content, style=_STYLES[part])
    else:
        opening, closing = _MARKS[part]
        text.append(f"{opening}{content}{closing}")


def _decode_run(ids: Sequence[int], start: int, end: int, tokenizer: Any, *, tokens: bool) -> str:
    if tokens:
        bar = "│" if end < len(ids) else ""
        return "│".join(_decode_token(token, tokenizer) for token in ids[start:end]) + bar
    # Decoded with the text before it: some tokenizers drop the space at the start of a text.
    before = tokenizer.decode(ids[:start])
    return str(tokenizer.decode(ids[:end]))[len(before) :]


def _decode_token(token: int, tokenizer: Any) -> str:
    """Return the text of one token; its name if that is only a part of a character."""
    name = str(tokenizer.convert_ids_to_tokens(token))
    if "▁" in name:
        return name.replace("▁", " ")
    spelled = str(tokenizer.decode([token]))
    return name if "\N{REPLACEMENT CHARACTER}" in spelled or not spelled else spelled.replace("\n", "⏎\n")


def _part_of(is_answer: object, label: bool | None) -> Part:
    if not is_answer:
        return "context"
    return "rejected" if label is False else "trained"


def _message_text(message: Message) -> str:
    """Return the message's text and its tool calls."""
    calls = message.extra.get("tool_calls")
    return message.content + (json.dumps(calls, ensure_ascii=False) if calls else "")
