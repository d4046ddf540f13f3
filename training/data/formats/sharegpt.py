"""Converts ShareGPT conversations to OpenAI messages. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from training.data.examples import Message
from training.data.formats.fields import describe_kind, read_text_field, shorten
from training.data.formats.json_records import MAX_DEPTH, is_too_deep
from training.data.formats.messages import make_call_id, parse_messages

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "developer",
    "function_call": "function_call",
    "tool_call": "function_call",
    "observation": "tool",
    "tool": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
_NAMES = "human, gpt, system, function_call, observation, tool"


def parse_conversation(record: Mapping[str, Any], faults: list[str]) -> tuple[Message, ...]:
    """Parse the chat in `conversations`, its `system` text first; faults are added to `faults`.

    Calls get ids from their number in the chat; an answer belongs to the oldest call without one.
    """
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        given = "missing" if turns is None else "an empty list" if turns == [] else describe_kind(turns)
        faults.append(f"`conversations` is {given}, but must be a list with at least one turn")
        return ()
    system = read_text_field(record, "system", faults, required=False)
    converted = _Converter(faults).convert(turns)
    if system and converted and converted[0].get("role") == "system":
        faults.append("the system prompt is given twice: in `system` and as the first turn; keep one")
    if faults:
        return ()
    return parse_messages([{"role": "system", "content": system}] * bool(system) + converted, faults)


def parse_answer(record: Mapping[str, Any], key: str, faults: list[str]) -> tuple[Message, ...]:
    """Parse the one answer under `key`, such as `chosen`: an object with `from` and `value`."""
    if not isinstance(record.get(key), dict):
        given = "missing" if record.get(key) is None else describe_kind(record[key])
        faults.append(f"`{key}` is {given}, but must be an object with `from` and `value`")
        return ()
    found: list[str] = []
    converted = _Converter(found).convert([record[key]])
    if not found and converted[0]["role"] != "assistant":
        found.append(f"it is from {shorten(record[key]['from'])}, but must be from gpt")
    messages = parse_messages(converted, found) if not found else ()
    faults.extend(f"`{key}`: {fault}" for fault in found)
    return messages


class _Converter:
    """Turns of one conversation as OpenAI messages; keeps track of unanswered calls."""

    def __init__(self, faults: list[str]) -> None:
        self._faults = faults
        self._called = 0
        self._open: list[str] = []

    def convert(self, turns: list[Any]) -> list[dict[str, Any]]:
        converted = [self._convert_turn(turn, f"turn {place}") for place, turn in enumerate(turns, start=1)]
        return [turn for turn in converted if turn is not None]

    def _convert_turn(self, turn: Any, place: str) -> dict[str, Any] | None:
        if not isinstance(turn, dict):
            self._faults.append(f"{place} is {describe_kind(turn)}, but must be an object with `from` and `value`")
            return None
        name, value = turn.get("from"), turn.get("value")
        role = _ROLES.get(name) if isinstance(name, str) else None
        if name is None:
            self._faults.append(f"{place} has no `from`; it must be one of {_NAMES}")
        elif role is None:
            self._faults.append(f"{place} is from {shorten(name)}; `from` must be one of {_NAMES}")
        if not isinstance(value, str):
            given = "no `value`" if value is None else f"a `value` that is {describe_kind(value)}"
            self._faults.append(f"{place} has {given}; it must be a string")
        elif role == "function_call":
            return self._convert_call(value, turn, place)
        elif role is not None:
            return self._convert_message(role, value, turn, place)
        return None

    def _convert_message(self, role: str, value: str, turn: Mapping[str, Any], place: str) -> dict[str, Any] | None:
        if role == "assistant":
            if not value.strip():
                self._faults.append(f"{place} is from gpt and has an empty `value`, so there is nothing to train on")
            return {"role": role, "content": value, "weight": turn.get("weight")}
        if role != "tool":
            return {"role": role, "content": value}
        if not self._open:
            self._faults.append(f"{place} is a tool's result, but there is no unanswered function_call before it")
            return None
        return {"role": role, "content": value, "tool_call_id": self._open.pop(0)}

    def _convert_call(self, value: str, turn: Mapping[str, Any], place: str) -> dict[str, Any] | None:
        """Convert to an assistant turn that makes the call, or the calls, whose JSON is `value`."""
        wanted = 'JSON such as {"name": "search", "arguments": {"query": "tea"}}, or a list of these'
        try:
            decoded = orjson.loads(value)
        except ValueError:
            self._faults.append(f"{place} is a function_call whose `value` isn't JSON; it must be {wanted}")
            return None
        calls = decoded if isinstance(decoded, list) else [decoded]
        named = [call for call in calls if isinstance(call, dict) and isinstance(call.get("name"), str)]
        if not calls or len(named) < len(calls):
            self._faults.append(f"{place} is a function_call without a `name`; its `value` must be {wanted}")
            return None
        converted = [self._make_openai_call(call, place) for call in named]
        self._open = [call["id"] for call in converted]
        return {"role": "assistant", "content": None, "tool_calls": converted, "weight": turn.get("weight")}

    def _make_openai_call(self, call: Mapping[str, Any], place: str) -> dict[str, Any]:
        arguments = call.get("arguments", call.get("parameters"))
        if isinstance(arguments, str):
            text = arguments
        elif is_too_deep(arguments):
            self._faults.append(f"{place}: `arguments` is nested more than {MAX_DEPTH} levels deep; flatten it")
            text = "{}"
        elif isinstance(arguments, dict) or arguments is None:
            text = orjson.dumps(arguments or {}).decode()
        else:
            text = "{}"
            self._faults.append(f"{place}: `arguments` is {describe_kind(arguments)}, but must be an object")
        self._called += 1
        function = {"name": call["name"], "arguments": text}
        return {"id": make_call_id(self._called), "type": "function", "function": function}
