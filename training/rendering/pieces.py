"""The pieces of a chat that a template may render, and how each is changed. Knows no template and no tokens."""

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
"""What each part is called in reports."""
Chat = tuple[list[Message], list[dict[str, Any]]]
"""Messages and tools, both its own to change."""
THOUGHT_END = "</think>"
"""Ends the reasoning of an answer that has it in its content, as DeepSeek-R1, QwQ and Qwen3 write it."""
_CONTENT: Mapping[str, Part] = {"system": "system", "developer": "system", "tool": "tool_results"}
"""Role → what its content is; else `content`."""


@dataclass(frozen=True)
class Piece:
    """Something in a chat that a template may render."""

    part: Part
    words: str
    """As a fault names it: `the call of "quote" in message 2`."""
    place: int
    """The message it stands in; -1 for a tool's definition."""
    change: Callable[[Chat, str], None]
    """Writes a mark into it."""


def not_rendered_note(counts: Mapping[Part, int]) -> str:
    """What a chat template passes over, in words: part → in how many examples; empty where there is nothing."""
    told = [f"{PART_WORDS[part]} in {count}" for part, count in counts.items() if count]
    return f"not rendered by the base model's chat template: {', '.join(told)}" if told else ""


def pieces_of(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], last_named: str | None
) -> Iterator[Piece]:
    """Every piece, those of tools last. last_named: how faults call the last message; None: by its number."""
    for place, message in enumerate(messages):
        is_last = place == len(messages) - 1
        yield from _in(message, place, last_named if is_last and last_named else f"message {place + 1}")
    for number, tool in enumerate(tools):
        name, parameters = tool["function"]["name"], tool["function"]["parameters"]
        yield Piece("tools", f'the tool "{name}"', -1, _in_tool(number, _rename))
        if isinstance(parameters, dict) and isinstance(parameters.get("properties"), dict) and parameters["properties"]:
            yield Piece("tools", f'the parameters of the tool "{name}"', -1, _in_tool(number, _rename_properties))
        if _described(tool["function"]):
            yield Piece("descriptions", f'the descriptions of the tool "{name}"', -1, _in_tool(number, _describe))


def _in(message: Message, place: int, where: str) -> Iterator[Piece]:
    if message.content.strip():
        part = _CONTENT.get(message.role, "content")
        words = f"the result of a tool in {where}" if part == "tool_results" else f"the text of {where}"
        yield Piece(part, words, place, _in_message(place, _at_end))
        if message.role == "assistant" and THOUGHT_END in message.content:
            yield Piece("reasoning", f"the reasoning in {where}", place, _in_message(place, _in_thought))
        else:  # some templates cut texts at their beginning
            yield Piece(part, f"the beginning of {words}", place, _in_message(place, _at_beginning))
    for key, part in (("name", "names"), ("reasoning", "reasoning")):
        if message.extra.get(key) and (key, message.role) != ("name", "tool"):  # the call has the tool's name, too
            yield Piece(part, f"the {key} in {where}", place, _in_message(place, _in_extra(key)))
    for number, call in enumerate(message.extra.get("tool_calls", ())):
        words = f'the call of "{call["function"]["name"]}" in {where}'
        yield Piece("tool_calls", words, place, _in_message(place, _in_call(number, _rename)))
        if _arguments(call["function"]):
            yield Piece("tool_calls", f"the arguments of {words}", place, _in_message(place, _in_call(number, _argue)))


def _in_tool(number: int, change: Callable[[dict[str, Any], str], None]) -> Callable[[Chat, str], None]:
    return lambda chat, mark: change(chat[1][number]["function"], mark)


def _in_message(place: int, change: Callable[[Message, str], Message]) -> Callable[[Chat, str], None]:
    def put(chat: Chat, mark: str) -> None:
        chat[0][place] = change(chat[0][place], mark)

    return put


def _at_end(said: Message, mark: str) -> Message:
    return replace(said, content=said.content + mark)


def _at_beginning(said: Message, mark: str) -> Message:
    return replace(said, content=mark + said.content)


def _in_thought(said: Message, mark: str) -> Message:
    return replace(said, content=said.content.replace(THOUGHT_END, mark + THOUGHT_END, 1))


def _in_extra(key: str) -> Callable[[Message, str], Message]:
    return lambda said, mark: replace(said, extra={**said.extra, key: said.extra[key] + mark})


def _in_call(number: int, change: Callable[[dict[str, Any], str], None]) -> Callable[[Message, str], Message]:
    def put(said: Message, mark: str) -> Message:
        calls = list(said.extra["tool_calls"])
        function = dict(calls[number]["function"])
        change(function, mark)
        calls[number] = {**calls[number], "function": function}
        return replace(said, extra={**said.extra, "tool_calls": calls})

    return put


def _rename(function: dict[str, Any], mark: str) -> None:
    function["name"] += mark


def _rename_properties(function: dict[str, Any], mark: str) -> None:
    schema = function["parameters"]
    schema["properties"] = {name + mark: value for name, value in schema["properties"].items()}


def _described(function: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of a tool has a description: itself, and each of its parameters."""
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    schemas = properties.values() if isinstance(properties, dict) else ()
    return [
        owner for owner in (function, *schemas) if isinstance(owner, dict) and isinstance(owner.get("description"), str)
    ]


def _describe(function: dict[str, Any], mark: str) -> None:
    for owner in _described(function):
        owner["description"] += mark


def _argue(function: dict[str, Any], mark: str) -> None:
    """Marks every text in the arguments; where there is none, their names."""
    arguments = _arguments(function)
    marked = _in_leaves(arguments, mark)
    if marked == arguments:
        marked = {name + mark: value for name, value in arguments.items()}
    function["arguments"] = json.dumps(marked)


def _arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    given = function.get("arguments") or {}
    decoded: dict[str, Any] = json.loads(given) if isinstance(given, str) else given
    return decoded


def _in_leaves(value: Any, mark: str) -> Any:
    if isinstance(value, dict):
        return {name: _in_leaves(item, mark) for name, item in value.items()}
    if isinstance(value, list):
        return [_in_leaves(item, mark) for item in value]
    return value + mark if isinstance(value, str) else value
