"""The pieces of a chat that a template may render, and how to change each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from training.data.examples import Message

Part = Literal["tool_calls", "tools", "tool_results", "system", "content", "reasoning", "names", "descriptions"]
PART_WORDS: Mapping[Part, str] = {
    "tool_calls": "tool calls",
    "tools": "tools",
    "tool_results": "tool results",
    "system": "system text",
    "content": "content",
    "reasoning": "reasoning",
    "names": "names",
    "descriptions": "tool descriptions",
}
"""The name of each part in reports."""
Chat = tuple[list[Message], list[dict[str, Any]]]
"""Messages and tools, both copies that may be changed."""
THOUGHT_END = "</think>"
"""Ends the reasoning of an answer that has it in its content, as in DeepSeek-R1, QwQ and Qwen3."""
_CONTENT: Mapping[str, Part] = {"system": "system", "developer": "system", "tool": "tool_results"}
"""Role → the part that its content is; else `content`."""


@dataclass(frozen=True)
class Piece:
    """Something in a chat that a template may render."""

    part: Part
    words: str
    """Its name in a fault: `the call of "quote" in message 2`."""
    place: int
    """Its message; -1 for a tool's definition."""
    change: Callable[[Chat, str], None]
    """Writes a mark into it."""


def not_rendered_note(counts: Mapping[Part, int]) -> str:
    """Say what a chat template omits: part → number of examples; empty if there is nothing."""
    listed = [f"{PART_WORDS[part]} in {count}" for part, count in counts.items() if count]
    return f"not rendered by the base model's chat template: {', '.join(listed)}" if listed else ""


def list_pieces(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], last_named: str | None
) -> Iterator[Piece]:
    """Yield every piece, those of tools last. last_named: the last message's name in faults; None: its number."""
    for place, message in enumerate(messages):
        is_last = place == len(messages) - 1
        yield from _message_pieces(message, place, last_named if is_last and last_named else f"message {place + 1}")
    for number, tool in enumerate(tools):
        name, parameters = tool["function"]["name"], tool["function"]["parameters"]
        yield Piece("tools", f'the tool "{name}"', -1, _change_tool(number, _mark_name))
        if isinstance(parameters, dict) and isinstance(parameters.get("properties"), dict) and parameters["properties"]:
            yield Piece("tools", f'the parameters of the tool "{name}"', -1, _change_tool(number, _mark_properties))
        if _find_described(tool["function"]):
            yield Piece(
                "descriptions", f'the descriptions of the tool "{name}"', -1, _change_tool(number, _mark_descriptions)
            )


def _message_pieces(message: Message, place: int, where: str) -> Iterator[Piece]:
    if message.content.strip():
        part = _CONTENT.get(message.role, "content")
        words = f"the result of a tool in {where}" if part == "tool_results" else f"the text of {where}"
        yield Piece(part, words, place, _change_message(place, _mark_end))
        if message.role == "assistant" and THOUGHT_END in message.content:
            yield Piece("reasoning", f"the reasoning in {where}", place, _change_message(place, _mark_reasoning))
        else:  # some templates cut texts at the start
            yield Piece(part, f"the beginning of {words}", place, _change_message(place, _mark_beginning))
    for key, part in (("name", "names"), ("reasoning", "reasoning")):
        if message.extra.get(key) and (key, message.role) != ("name", "tool"):  # the call has the tool's name, too
            yield Piece(part, f"the {key} in {where}", place, _change_message(place, _mark_extra(key)))
    for number, call in enumerate(message.extra.get("tool_calls", ())):
        words = f'the call of "{call["function"]["name"]}" in {where}'
        yield Piece("tool_calls", words, place, _change_message(place, _mark_call(number, _mark_name)))
        if _decode_arguments(call["function"]):
            yield Piece(
                "tool_calls",
                f"the arguments of {words}",
                place,
                _change_message(place, _mark_call(number, _mark_arguments)),
            )


def _change_tool(number: int, change: Callable[[dict[str, Any], str], None]) -> Callable[[Chat, str], None]:
    return lambda chat, mark: change(chat[1][number]["function"], mark)


def _change_message(place: int, change: Callable[[Message, str], Message]) -> Callable[[Chat, str], None]:
    def put(chat: Chat, mark: str) -> None:
        chat[0][place] = change(chat[0][place], mark)

    return put


def _mark_end(message: Message, mark: str) -> Message:
    return replace(message, content=message.content + mark)


def _mark_beginning(message: Message, mark: str) -> Message:
    return replace(message, content=mark + message.content)


def _mark_reasoning(message: Message, mark: str) -> Message:
    return replace(message, content=message.content.replace(THOUGHT_END, mark + THOUGHT_END, 1))


def _mark_extra(key: str) -> Callable[[Message, str], Message]:
    return lambda message, mark: replace(message, extra={**message.extra, key: message.extra[key] + mark})


def _mark_call(number: int, change: Callable[[dict[str, Any], str], None]) -> Callable[[Message, str], Message]:
    def put(message: Message, mark: str) -> Message:
        calls = list(message.extra["tool_calls"])
        function = dict(calls[number]["function"])
        change(function, mark)
        calls[number] = {**calls[number], "function": function}
        return replace(message, extra={**message.extra, "tool_calls": calls})

    return put


def _mark_name(function: dict[str, Any], mark: str) -> None:
    function["name"] += mark


def _mark_properties(function: dict[str, Any], mark: str) -> None:
    schema = function["parameters"]
    schema["properties"] = {name + mark: value for name, value in schema["properties"].items()}


def _find_described(function: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a tool with a description: itself, and each of its parameters."""
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    schemas = properties.values() if isinstance(properties, dict) else ()
    return [
        owner for owner in (function, *schemas) if isinstance(owner, dict) and isinstance(owner.get("description"), str)
    ]


def _mark_descriptions(function: dict[str, Any], mark: str) -> None:
    for owner in _find_described(function):
        owner["description"] += mark


def _mark_arguments(function: dict[str, Any], mark: str) -> None:
    """Mark every string in the arguments; if there is none, their names."""
    arguments = _decode_arguments(function)
    marked = _mark_leaves(arguments, mark)
    if marked == arguments:
        marked = {name + mark: value for name, value in arguments.items()}
    function["arguments"] = json.dumps(marked)


def _decode_arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    given = function.get("arguments") or {}
    decoded: dict[str, Any] = json.loads(given) if isinstance(given, str) else given
    return decoded


def _mark_leaves(value: Any, mark: str) -> Any:
    if isinstance(value, dict):
        return {name: _mark_leaves(item, mark) for name, item in value.items()}
    if isinstance(value, list):
        return [_mark_leaves(item, mark) for item in value]
    return value + mark if isinstance(value, str) else value
