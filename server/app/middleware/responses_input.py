"""What an item of a Responses `input` may cost vLLM's validation. Refuses nothing, and rewrites nothing.

vLLM tries an item as each of fifty kinds. Where it is none, that is 233 faults, 1.2 MB and 4 ms; where it is one, next
to nothing. So those that are sure to be one, as agents send them by the hundred, weigh nothing; others weigh one each
and one for each part, whether vLLM knows them or not.
"""

from __future__ import annotations

from typing import Any

RESPONSES = "/v1/responses"
MAX_WEIGHT = 160
"""0.5 s and 200 MB, if vLLM knows none of them."""

_ROLES = frozenset({"user", "assistant", "system", "developer"})
_STATUSES = frozenset({"in_progress", "completed", "incomplete"})
_CALLS = {
    "function_call": frozenset({"call_id", "name", "arguments"}),
    "function_call_output": frozenset({"call_id", "output"}),
}
"""By their type: what they must have, all of it text."""
_MESSAGE = frozenset({"role", "content"})
_MAY_HAVE = frozenset({"type", "id", "status"})
_PART_KEYS = {
    "input_text": frozenset({"type", "text"}),
    "output_text": frozenset({"type", "text", "annotations", "logprobs"}),
}
"""Others might be known to vLLM, and wrong."""


def weight(content: Any) -> int:
    """Items of `input` that aren't sure to be understood, with their parts."""
    if not isinstance(content, list):
        return 0
    return sum(1 + _parts(item) for item in content if not _is_plain(item))


def _parts(item: Any) -> int:
    """Entries of the lists and objects in it, as far down as they are tried."""
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
    """Return whether it is what anybody says, with text; or an answer, as it is sent back."""
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
    """Return whether it is text, and of this kind."""
    return (
        isinstance(part, dict)
        and part.get("type") == kind
        and isinstance(part.get("text"), str)
        and part.keys() <= _PART_KEYS[kind]
        and part.get("logprobs") in (None, [])
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
