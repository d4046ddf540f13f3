"""Finds the parts of a chat that its template omits, by experiment: each piece is changed, and if the rendering stays
the same, the template doesn't render it.

A piece counts as rendered if it is in any row of the example, or, except for reasoning and names, in the chat up to any
of the assistant's turns: templates omit from earlier turns what they render in the last one, here and when serving.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from training.data.examples import Message
from training.rendering.chat_turns import ChatError, ChatTemplate
from training.rendering.pieces import THOUGHT_END, Chat, Part, Piece, list_pieces

_ONLY_IN_ROWS: frozenset[Part] = frozenset({"reasoning", "names"})
_HARMLESS: frozenset[Part] = frozenset({"reasoning", "names", "descriptions"})
"""Without these an answer still makes sense; likewise without tools, if no trained answer calls one."""
_TOOLS: frozenset[Part] = frozenset({"tool_calls", "tools", "tool_results"})
_LISTED = 3
"""Pieces listed in a fault; the rest is counted."""


class OmittedPartsError(ChatError):
    """A chat whose meaning changes by what the template omits; `parts` has the affected parts."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.parts = frozenset(piece.part for piece in pieces)
        lost = [piece for piece in pieces if piece.part not in _HARMLESS]
        whole = tuple(f" of {piece.words}" for piece in lost)
        lost = [piece for piece in lost if not piece.words.endswith(whole)]  # without arguments of a listed call
        named = ", ".join(piece.words for piece in lost[:_LISTED])
        more = f" and {len(lost) - _LISTED} more" if len(lost) > _LISTED else ""
        if {piece.part for piece in lost} <= _TOOLS:
            remedy = (
                "use a base model whose template renders tools, give this one such a template, or remove tools and "
                "calls from the example"
            )
        else:
            remedy = "use a base model whose template renders it, put it where this one does, or remove it"
        super().__init__(f"the base model's chat template doesn't render {named}{more}, so it would be lost; {remedy}")


def find_omitted_parts(
    template: ChatTemplate,
    messages: Sequence[Message],
    row_ends: Sequence[int],
    *,
    learned: Sequence[int],
    last_named: str | None = None,
) -> frozenset[Part]:
    """Return the parts that are in no row, none of which changes the chat's meaning.

    Args:
        row_ends: lengths of the rendered prefixes of the chat, the longest first.
        learned: the messages that are trained on.
        last_named: the last message's name in faults. Default: its number.

    Raises:
        OmittedPartsError: a call, a tool's result or a text is in none; or a tool, and a trained answer calls.
        ChatError: the template rejects the chat.
    """
    messages = messages[: max(row_ends)]
    lost = _find_not_rendered(template, messages, row_ends, last_named)
    calls = any(messages[place].extra.get("tool_calls") for place in learned)
    harmless = _HARMLESS if calls else _HARMLESS | {"tools"}
    if any(piece.part not in harmless for piece in lost):
        raise OmittedPartsError(lost)
    parts = frozenset(piece.part for piece in lost)
    return parts - {"descriptions"} if "tools" in parts else parts


def is_only_talk(template: ChatTemplate, messages: Sequence[Message]) -> bool:
    """Return whether the chat has only questions and answers: no tools, no system, no names, no reasoning."""
    return not template.tools and all(
        not message.extra and message.role in ("user", "assistant") and THOUGHT_END not in message.content
        for message in messages
    )


def _find_not_rendered(
    template: ChatTemplate, messages: Sequence[Message], row_ends: Sequence[int], last_named: str | None
) -> list[Piece]:
    missing = list(list_pieces(messages, template.tools, last_named))
    for end in row_ends:
        missing = _filter_missing(template, messages, end, missing)
    for end in _other_ends(messages, row_ends):
        if all(piece.part in _ONLY_IN_ROWS for piece in missing):
            break
        try:
            missing = _filter_missing(template, messages, end, missing, but=_ONLY_IN_ROWS)
        except ChatError:
            continue  # a prefix that is no row of its own, and that the template rejects
    return missing


def _other_ends(messages: Sequence[Message], row_ends: Sequence[int]) -> list[int]:
    ends = {place + 1 for place, message in enumerate(messages) if message.role == "assistant"}
    return sorted(ends.difference(row_ends), reverse=True)


def _filter_missing(
    template: ChatTemplate,
    messages: Sequence[Message],
    end: int,
    missing: Sequence[Piece],
    but: frozenset[Part] = frozenset(),
) -> list[Piece]:
    """Return those of `missing` that aren't rendered in the first `end` messages either. Raises: ChatError."""
    sought = [piece for piece in missing if piece.place < end and piece.part not in but]
    if not sought:
        return list(missing)
    seen = {id(piece) for piece in sought}.difference(map(id, _find_unrendered(template, messages[:end], sought)))
    return [piece for piece in missing if id(piece) not in seen]


def _find_unrendered(template: ChatTemplate, messages: Sequence[Message], pieces: Sequence[Piece]) -> list[Piece]:
    """Return those of `pieces` whose change doesn't change the rendering of `messages`. Raises: ChatError."""
    text = _render_marked(template, messages, pieces)
    # A mark that isn't found may have been rendered differently; then the rendering has changed all the same.
    unmarked = list(pieces) if text is None else [piece for n, piece in enumerate(pieces) if _make_mark(n) not in text]
    if not unmarked:
        return []
    plain = template.text(messages)
    if len(unmarked) > 1 and _render_marked(template, messages, unmarked) == plain:
        return unmarked
    return [piece for piece in unmarked if _render_marked(template, messages, [piece]) == plain]


def _render_marked(template: ChatTemplate, messages: Sequence[Message], pieces: Sequence[Piece]) -> str | None:
    """Render with a mark in each of `pieces`; return None if the template rejects that: so it has read them."""
    chat: Chat = (list(messages), copy.deepcopy(template.tools))
    for number, piece in enumerate(pieces):
        piece.change(chat, _make_mark(number))
    try:
        return template.with_tools(chat[1]).text(chat[0])
    except ChatError:
        return None


def _make_mark(number: int) -> str:
    return f"zq{number}qz"
