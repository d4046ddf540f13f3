"""An example as texts: all of it, its prompt, its answers, and an identity for duplicates. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from training.data.examples import Example, Message

_SYSTEM = ("system", "developer")
_TEXT_FIELDS = ("prompt", "completion", "text")
_TURN_FIELDS = ("messages", "chosen", "rejected")


def all_texts(example: Example) -> list[str]:
    """Return every text of `example` that a person wrote or that is trained on, including arguments of tool calls."""
    texts = [text for text in (example.prompt, example.completion, example.text) if text is not None]
    for message in (*example.messages, *example.chosen, *example.rejected):
        texts.append(message.content)
        if message.extra:
            texts += _extra_texts(message.extra)
    return texts


def answers(example: Example) -> list[str]:
    """Return the trained texts of `example`; answers that only call tools are left out, their text is empty."""
    if example.text is not None:
        return [example.text]
    if example.completion is not None:
        return [example.completion]
    turns = (*example.messages, *example.chosen)
    return [
        turn.content
        for turn in turns
        if turn.role == "assistant" and turn.weight and (turn.content or not turn.extra.get("tool_calls"))
    ]


def prompt_text(example: Example) -> str:
    """Return the question of `example`, without system messages; empty for plain text.

    For a chat that is what user and tools say, for a preference the whole chat before the two answers.
    """
    if example.prompt is not None:
        return example.prompt
    is_pair = bool(example.chosen)
    all_turns = (turn.content for turn in example.messages if turn.role not in _SYSTEM)
    inputs = (turn.content for turn in example.messages if turn.role not in _SYSTEM and turn.role != "assistant")
    return "\n".join(all_turns if is_pair else inputs)


def whole_text(example: Example) -> str:
    """Return all of `example` but system messages: long ones, equal in every row, would make all rows look similar."""
    if example.text is not None:
        return example.text
    if example.prompt is not None:
        return f"{example.prompt}\n{example.completion}"
    turns = (*example.messages, *example.chosen, *example.rejected)
    return "\n".join(_turn_text(turn) for turn in turns if turn.role not in _SYSTEM)


def identity(example: Example) -> str:
    """Return a text that two examples share if they differ only in white space: roles, tools and label count."""
    if example.text is not None:
        parts = ["text", example.text]
    elif example.prompt is not None:
        parts = ["completion", example.prompt, example.completion or ""]
    else:
        parts = [str(example.label)]
        for name, turns in (("", example.messages), ("chosen", example.chosen), ("rejected", example.rejected)):
            for turn in turns:
                parts += [name + turn.role, _turn_text(turn)]
        if example.tools:
            parts.append(json.dumps(example.tools, ensure_ascii=False, sort_keys=True))
    return " ".join("\0".join(parts).split())


def _turn_text(turn: Message) -> str:
    if not turn.extra:
        return turn.content
    thought, calls = turn.extra.get("reasoning") or "", turn.extra.get("tool_calls")
    return f"{thought}{turn.content}{json.dumps(_without_ids(calls), ensure_ascii=False) if calls else ''}"


def _without_ids(calls: Any) -> Any:
    """Return tool calls without their ids, which are arbitrary."""
    return [call.get("function", call) if isinstance(call, dict) else call for call in calls]


def map_texts(example: Example, change: Callable[[str], str]) -> Example:
    """Apply `change` to messages, reasoning, prompt, completion and text; return `example` itself if none changes.

    Tools and tool calls are left alone: they are code.
    """
    changes: dict[str, Any] = {}
    for name in _TEXT_FIELDS:
        old = getattr(example, name)
        if old and (new := change(old)) != old:
            changes[name] = new
    for name in _TURN_FIELDS:
        turns: tuple[Message, ...] = getattr(example, name)
        if turns and (changed := _map_turns(turns, change)) is not turns:
            changes[name] = changed
    return replace(example, **changes) if changes else example


def _map_turns(turns: tuple[Message, ...], change: Callable[[str], str]) -> tuple[Message, ...]:
    changed = [_map_turn(turn, change) for turn in turns]
    return tuple(changed) if any(new is not old for new, old in zip(changed, turns, strict=True)) else turns


def _map_turn(turn: Message, change: Callable[[str], str]) -> Message:
    content, thought = change(turn.content), turn.extra.get("reasoning")
    extra = turn.extra
    if isinstance(thought, str) and (new := change(thought)) != thought:
        extra = {**extra, "reasoning": new}
    return turn if content == turn.content and extra is turn.extra else replace(turn, content=content, extra=extra)


def map_arguments(example: Example, change: Callable[[str], str]) -> Example:
    """Apply `change` to the values in the arguments of tool calls; return `example` itself if none changes.

    Arguments remain valid JSON: a number that changes becomes a string.
    """
    changes = {}
    for name in _TURN_FIELDS:
        turns: tuple[Message, ...] = getattr(example, name)
        if any(turn.extra.get("tool_calls") for turn in turns):
            changed = tuple(_map_calls(turn, change) for turn in turns)
            if changed != turns:
                changes[name] = changed
    return replace(example, **changes) if changes else example  # type: ignore[arg-type]


def _map_calls(turn: Message, change: Callable[[str], str]) -> Message:
    calls = turn.extra.get("tool_calls")
    if not isinstance(calls, list):
        return turn
    return replace(turn, extra={**turn.extra, "tool_calls": [_map_call(call, change) for call in calls]})


def _map_call(call: Any, change: Callable[[str], str]) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or "arguments" not in function:
        return call
    original = function["arguments"]
    decoded = _decode_json(original)
    changed = _map_leaves(decoded, change)
    if changed == decoded:
        return call
    is_json = isinstance(original, str) and not isinstance(decoded, str)
    arguments = json.dumps(changed, ensure_ascii=False) if is_json else changed
    return {**call, "function": {**function, "arguments": arguments}}


def _map_leaves(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {name: _map_leaves(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_map_leaves(item, change) for item in value]
    if isinstance(value, str):
        return change(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        changed = change(str(value))
        return value if changed == str(value) else changed
    return value


def _decode_json(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _extra_texts(extra: Mapping[str, Any]) -> list[str]:
    """Return the reasoning, and the values in the arguments of tool calls."""
    thought = extra.get("reasoning")
    texts: list[str] = [thought] if isinstance(thought, str) else []
    for call in extra.get("tool_calls") or ():
        _map_leaves(_decode_json((call.get("function") or {}).get("arguments")), lambda text: _collect(texts, text))
    return texts


def _collect(texts: list[str], text: str) -> str:
    texts.append(text)
    return text
