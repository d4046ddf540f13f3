"""The cost of validating a Responses `input` in vLLM. Rejects and changes nothing.

vLLM tries an item as each of fifty types. If it matches none, that is 233 faults, 1.2 MB and 4 ms; if it matches one,
almost nothing. So items that certainly match, which agents send by the hundreds, have no weight; other items weigh one
each plus one per part, whether vLLM knows them or not.
"""

from __future__ import annotations

from typing import Any

RESPONSES = "/v1/responses"
MAX_WEIGHT = 160
"""0.5 s and 200 MB if vLLM knows none of them."""

_ROLES = frozenset({"user", "assistant", "system", "developer"})
_STATUSES = frozenset({"in_progress", "completed", "incomplete"})
_CALLS = {
    "function_call": frozenset({"call_id", "name", "arguments"}),
    "function_call_output": frozenset({"call_id", "output"}),
}
"""Item type → its required string fields."""
_MESSAGE = frozenset({"role", "content"})
_MAY_HAVE = frozenset({"type", "id", "status"})
_PART_KEYS = {
    "input_text": frozenset({"type", "text"}),
    "output_text": frozenset({"type", "text", "annotations", "logprobs"}),
}
"""Other roles may be known to vLLM and still be invalid."""


def weight(content: Any) -> int:
    """Return the number of items of `input`, with their parts, that may not match."""
    if not isinstance(content, list):
        return 0
    return sum(1 + _parts(item) for item in content if not _is_plain(item))


def _parts(item: Any) -> int:
    """Return the number of entries in its lists and objects, as deep as vLLM tries them."""
    if not isinstance(item, dict):
        return 0
    return sum(len(value) for value in item.values() if isinstance(value, list | dict))


def _is_plain(item: Any) -> bool:
    if not isinstance(item, dict) or not _has_sound_id(item):
        return False
    kind = item.get("type", "message")
    required = _MESSAGE if kind == "message" else _CALLS.get(_text(kind))
    if required is None or not required <= item.keys() <= required | _MAY_HAVE:
        return False
    return _is_message(item) if required is _MESSAGE else all(isinstance(item[key], str) for key in required)


def _has_sound_id(item: dict[str, Any]) -> bool:
    return isinstance(item.get("id", ""), str) and _text(item.get("status", "completed")) in _STATUSES


def _is_message(item: dict[str, Any]) -> bool:
    """Return whether it is a message with text, or an answer that is sent back."""
    if _text(item["role"]) not in _ROLES:
        return False
    parts = item["content"]
    if not isinstance(parts, list):
        return isinstance(parts, str)
    if all(_is_part(part, "input_text") for part in parts):
        return True
    is_answer = item["role"] == "assistant" and item.keys() >= _MAY_HAVE
    return is_answer and all(_is_part(part, "output_text") and part.get("annotations") == [] for part in parts)


def _is_part(part: Any, kind: str) -> bool:
    """Return whether it is a text part of this type."""
    return (
        isinstance(part, dict)
        and part.get("type") == kind
        and isinstance(part.get("text"), str)
        and part.keys() <= _PART_KEYS[kind]
        and part.get("logprobs") in (None, [])
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
