"""What of a chat its template passes over, found out and not guessed: each piece is changed, and where the rendering
stays the same the template doesn't render it.

A piece counts as rendered when it is in any row of the example, or, but for reasoning and names, in the chat up to any
of the assistant's turns: templates leave out of earlier turns what they render in the last one, here and when serving.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from training.data.examples import Message
from training.rendering.chat_turns import ChatError, ChatTemplate
from training.rendering.pieces import THOUGHT_END, Chat, Part, Piece, pieces_of

_ONLY_IN_ROWS: frozenset[Part] = frozenset({"reasoning", "names"})
_HARMLESS: frozenset[Part] = frozenset({"reasoning", "names", "descriptions"})
"""Without these an answer still answers what it did; and without tools, where no learned answer calls one."""
_TOOLS: frozenset[Part] = frozenset({"tool_calls", "tools", "tool_results"})
_LISTED = 3
"""Pieces that a fault names; of more, how many there are."""


class PassedOverError(ChatError):
    """A chat whose meaning changes by what the template passes over; `parts` has the sorts of that."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.parts = frozenset(piece.part for piece in pieces)
        lost = [piece for piece in pieces if piece.part not in _HARMLESS]
        whole = tuple(f" of {piece.words}" for piece in lost)
        lost = [piece for piece in lost if not piece.words.endswith(whole)]  # not the arguments of a call beside it
        named = ", ".join(piece.words for piece in lost[:_LISTED])
        more = f" and {len(lost) - _LISTED} more" if len(lost) > _LISTED else ""
        if {piece.part for piece in lost} <= _TOOLS:
            remedy = (
                "take a base model whose template renders tools, give this one such a template, or take tools and "
                "calls out of the example"
            )
        else:
            remedy = "take a base model whose template renders it, write it where this one does, or take it out"
        super().__init__(f"the base model's chat template doesn't render {named}{more}, so it would be lost; {remedy}")


def parts_passed_over(
    template: ChatTemplate,
    messages: Sequence[Message],
    row_ends: Sequence[int],
    *,
    learned: Sequence[int],
    last_named: str | None = None,
) -> frozenset[Part]:
    """The sorts of pieces that are in no row, none of which changes what the chat means.

    Args:
        row_ends: lengths of the beginnings of the chat that are rendered, the longest first.
        learned: the messages that are learned.
        last_named: how faults call the last message. Default: by its number.

    Raises:
        PassedOverError: a call, a tool's result or a text is in none; or a tool is in none, and a learned answer calls.
        ChatError: the template refuses the chat.
    """
    messages = messages[: max(row_ends)]
    lost = _not_rendered(template, messages, row_ends, last_named)
    calls = any(messages[place].extra.get("tool_calls") for place in learned)
    harmless = _HARMLESS if calls else _HARMLESS | {"tools"}
    if any(piece.part not in harmless for piece in lost):
        raise PassedOverError(lost)
    parts = frozenset(piece.part for piece in lost)
    return parts - {"descriptions"} if "tools" in parts else parts


def is_only_talk(template: ChatTemplate, messages: Sequence[Message]) -> bool:
    """Whether the chat has nothing but questions and answers: no tools, no system, no names, no reasoning."""
    return not template.tools and all(
        not message.extra and message.role in ("user", "assistant") and THOUGHT_END not in message.content
        for message in messages
    )


def _not_rendered(
    template: ChatTemplate, messages: Sequence[Message], row_ends: Sequence[int], last_named: str | None
) -> list[Piece]:
    missing = list(pieces_of(messages, template.tools, last_named))
    for end in row_ends:
        missing = _still_missing(template, messages, end, missing)
    for end in _other_ends(messages, row_ends):
        if all(piece.part in _ONLY_IN_ROWS for piece in missing):
            break
        try:
            missing = _still_missing(template, messages, end, missing, but=_ONLY_IN_ROWS)
        except ChatError:
            continue  # a beginning that is no row of its own, and that the template refuses
    return missing


def _other_ends(messages: Sequence[Message], row_ends: Sequence[int]) -> list[int]:
    ends = {place + 1 for place, message in enumerate(messages) if message.role == "assistant"}
    return sorted(ends.difference(row_ends), reverse=True)


def _still_missing(
    template: ChatTemplate,
    messages: Sequence[Message],
    end: int,
    missing: Sequence[Piece],
    but: frozenset[Part] = frozenset(),
) -> list[Piece]:
    """Those of `missing` that aren't rendered in the first `end` messages either. Raises: ChatError."""
    sought = [piece for piece in missing if piece.place < end and piece.part not in but]
    if not sought:
        return list(missing)
    seen = {id(piece) for piece in sought}.difference(map(id, _unseen(template, messages[:end], sought)))
    return [piece for piece in missing if id(piece) not in seen]


def _unseen(template: ChatTemplate, messages: Sequence[Message], pieces: Sequence[Piece]) -> list[Piece]:
    """Those of `pieces` whose change doesn't change the rendering of `messages`. Raises: ChatError."""
    text = _marked(template, messages, pieces)
    # A mark that isn't found may have been rendered in other letters; then the rendering has changed all the same.
    unmarked = list(pieces) if text is None else [piece for n, piece in enumerate(pieces) if _mark(n) not in text]
    if not unmarked:
        return []
    plain = template.text(messages)
    if len(unmarked) > 1 and _marked(template, messages, unmarked) == plain:
        return unmarked
    return [piece for piece in unmarked if _marked(template, messages, [piece]) == plain]


def _marked(template: ChatTemplate, messages: Sequence[Message], pieces: Sequence[Piece]) -> str | None:
    """The rendering with a mark in each of `pieces`; None where the template refuses that: it has looked at them."""
    chat: Chat = (list(messages), copy.deepcopy(template.tools))
    for number, piece in enumerate(pieces):
        piece.change(chat, _mark(number))
    try:
        return template.with_tools(chat[1]).text(chat[0])
    except ChatError:
        return None


def _mark(number: int) -> str:
    return f"zq{number}qz"
