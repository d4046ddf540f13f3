"""Chats in OpenAI's form: the rules of messages, tool calls and their answers. Imports no torch.

Source: https://platform.openai.com/docs/api-reference/fine-tuning/chat-input
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from training.data.examples import ROLES, Message
from training.data.formats.fields import describe_kind, shorten
from training.data.formats.json_records import MAX_DEPTH, is_too_deep

_PLAIN = frozenset({"system", "developer", "user", "assistant"})


def parse_messages(turns: Any, faults: list[str], key: str = "messages") -> tuple[Message, ...]:
    """Parse the messages in the list `turns`; faults are added to `faults`.

    Args:
        key: the key of the list, for the faults.
    """
    if not isinstance(turns, list) or not turns:
        given = "missing" if turns is None else "an empty list" if turns == [] else describe_kind(turns)
        faults.append(f"`{key}` is {given}, but must be a list with at least one message")
        return ()
    turns = _convert_function_calls(turns, faults)
    where = "message" if key == "messages" else f"`{key}` message"
    messages = [_parse_message(turn, f"{where} {place}", faults) for place, turn in enumerate(turns, start=1)]
    known = tuple(message for message in messages if message is not None)
    if not faults:
        _check_tool_answers(known, where, faults)
    return known


def check_learnable(messages: Sequence[Message], faults: list[str]) -> None:
    """Add a fault if nothing in `messages` can be trained on."""
    weights = [message.weight for message in messages if message.role == "assistant"]
    if not weights:
        faults.append("no message has the role assistant, so there is nothing to train on")
    elif not any(weights):
        faults.append("every assistant message has weight 0, so there is nothing to train on")


def make_call_id(number: int) -> str:
    """Make an id for the call of that number in its chat: 9 letters and digits, as Mistral's templates require."""
    return f"call{number % 100_000:05d}"


def check_calls(calls: Any, place: str, faults: list[str]) -> None:
    """Add faults of an assistant's `tool_calls`."""
    if not isinstance(calls, list):
        faults.append(f"{place}: `tool_calls` is {describe_kind(calls)}, but must be a list of calls")
        return
    for number, call in enumerate(calls, start=1):
        where = f"{place}, tool call {number}"
        if not isinstance(call, dict):
            faults.append(f"{where} is {describe_kind(call)}, but must be an object with `id`, `type` and `function`")
            continue
        if not isinstance(call.get("id"), str) or not call["id"]:
            faults.append(f"{where} has no `id`; add a string that the tool message repeats as `tool_call_id`")
        if call.get("type") != "function":
            faults.append(f'{where} has the type {shorten(call.get("type"))}; it must be "function"')
        _check_function(call.get("function"), where, faults)


def _parse_message(record: Any, place: str, faults: list[str]) -> Message | None:
    if not isinstance(record, dict):
        faults.append(f"{place} is {describe_kind(record)}, but must be an object with `role` and `content`")
        return None
    role, content = record.get("role"), record.get("content")
    if len(record) == 2 and type(content) is str and type(role) is str and role in _PLAIN and content.strip():
        return Message(role, content)  # nearly all of them: no rule is left to check
    if role is None:
        faults.append(f"{place} has no `role`; it must be one of {', '.join(ROLES)}")
        return None
    if not isinstance(role, str) or role not in ROLES:
        faults.append(f"{place} has the unknown role {shorten(role)}; it must be one of {', '.join(ROLES)}")
        return None
    extra = _parse_extra(record, role, place, faults)
    return Message(role, _parse_content(record, role, place, faults), _parse_weight(record, role, place, faults), extra)


def _parse_extra(record: Mapping[str, Any], role: str, place: str, faults: list[str]) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if record.get("tool_calls"):  # an empty list is no call: vLLM drops it, too
        if role == "assistant":
            check_calls(record["tool_calls"], place, faults)
            extra["tool_calls"] = record["tool_calls"]
        else:
            faults.append(f"{place} has `tool_calls` and the role {role}; only an assistant calls tools")
    if role == "tool":
        if isinstance(record.get("tool_call_id"), str) and record["tool_call_id"]:
            extra["tool_call_id"] = record["tool_call_id"]
        else:
            faults.append(f"{place} is from a tool but has no `tool_call_id`; add the `id` of the call it answers")
    if isinstance(record.get("name"), str):
        extra["name"] = record["name"]
    elif record.get("name") is not None:
        faults.append(f"{place}: `name` is {describe_kind(record['name'])}, but must be a string")
    if role == "assistant" and isinstance(reasoning := record.get("reasoning") or record.get("reasoning_content"), str):
        extra["reasoning"] = reasoning
    return extra


def _parse_content(record: Mapping[str, Any], role: str, place: str, faults: list[str]) -> str:
    content = record.get("content")
    if content is None and role == "assistant" and record.get("tool_calls"):
        return ""
    if isinstance(content, list):
        content = _join_parts(content, place, faults)
    if not isinstance(content, str):
        given = "no `content`" if content is None else f"`content` that is {describe_kind(content)}"
        faults.append(f"{place} has {given}; it must be a string")
        return ""
    if role == "assistant" and not content.strip() and not record.get("tool_calls"):
        faults.append(f"{place} is from the assistant but has empty `content`, so there is nothing to train on")
    return content


def _join_parts(parts: list[Any], place: str, faults: list[str]) -> str:
    """Return the text of content in parts, as OpenAI allows it; parts become lines, as vLLM does when serving."""
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    strings = [text for text in texts if isinstance(text, str)]
    if len(strings) == len(parts):
        return "\n".join(strings)
    faults.append(f"{place} has a content part that isn't text; only text can be trained on")
    return "?"  # stands for the text, so that its absence isn't reported as well


def _parse_weight(record: Mapping[str, Any], role: str, place: str, faults: list[str]) -> int:
    weight = record.get("weight")
    if weight is None:
        return 1
    if weight not in (0, 1) or isinstance(weight, bool):
        faults.append(f"{place} has weight {shorten(weight)}; it must be 0 (not trained on) or 1 (trained on)")
    elif role == "assistant":
        return int(weight)
    elif weight == 1:
        faults.append(
            f"{place} has weight 1 and the role {role}; only assistant messages are trained on, remove the weight"
        )
    return 1


def _check_function(function: Any, where: str, faults: list[str]) -> None:
    if not isinstance(function, dict):
        faults.append(f"{where} has no `function`; it must be an object with `name` and `arguments`")
        return
    if not isinstance(function.get("name"), str) or not function["name"].strip():
        faults.append(f"{where} has no `function.name`; add the name of the called function")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        given = "missing" if arguments is None else describe_kind(arguments)
        faults.append(f'{where}: `function.arguments` is {given}, but must be JSON in a string, such as "{{}}"')
        return
    try:
        decoded = orjson.loads(arguments)
    except ValueError:
        faults.append(f"{where}: `function.arguments` isn't JSON: {shorten(arguments)}")
        return
    if not isinstance(decoded, dict):
        faults.append(f"{where}: `function.arguments` contains {describe_kind(decoded)}, but must contain an object")
    elif is_too_deep(decoded):
        faults.append(f"{where}: `function.arguments` is nested more than {MAX_DEPTH} levels deep; flatten it")


def _check_tool_answers(messages: Sequence[Message], where: str, faults: list[str]) -> None:
    """Check that tools only answer earlier calls, and that the ids of the calls in a chat differ."""
    called: set[str] = set()
    for place, message in enumerate(messages, start=1):
        if message.role == "tool":
            answered = message.extra["tool_call_id"]
            if answered not in called:
                faults.append(
                    f"{where} {place} answers the call {shorten(answered)}, which isn't in any earlier message"
                )
        for call in message.extra.get("tool_calls", ()):
            if call["id"] in called:
                faults.append(f"{where} {place} uses the call id {shorten(call['id'])} again; ids must be unique")
            called.add(call["id"])


def _convert_function_calls(turns: list[Any], faults: list[str]) -> list[Any]:
    """Convert OpenAI's older `function_call` and role function in `turns` to tool calls, which templates support."""
    if not any(
        isinstance(turn, dict) and (turn.get("function_call") or turn.get("role") == "function") for turn in turns
    ):
        return turns
    newer: list[Any] = []
    called = 0
    for place, turn in enumerate(turns, start=1):
        if isinstance(turn, dict) and turn.get("function_call"):
            called += 1
            call = {"id": make_call_id(called), "type": "function", "function": turn["function_call"]}
            turn = {key: value for key, value in turn.items() if key != "function_call"} | {"tool_calls": [call]}
        elif isinstance(turn, dict) and turn.get("role") == "function":
            if not called:
                faults.append(f"message {place} is a function's result, but no earlier message has a `function_call`")
            turn = {**turn, "role": "tool", "tool_call_id": make_call_id(called)}
        newer.append(turn)
    return newer
