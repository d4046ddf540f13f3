"""JSON that can be stored and sent back unchanged: requests may hold what no response can, such as NaN or half a
character."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

MOST_NESTED = 32
"""Nesting limit of lists and objects: more than any message needs, and few enough for every later reader."""


def find_storage_fault(value: Any) -> str | None:
    """Return why this JSON value can't be sent back unchanged, with the remedy; None if it can."""
    if _is_nested_deeper(value, MOST_NESTED):
        return f"is nested more than {MOST_NESTED} levels deep. Nest less, or send the inner levels as text."
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "contains half of a surrogate pair (a broken emoji, for example). Send complete characters."
    except ValueError:
        return "contains NaN, Infinity or a number too large for JSON. Send valid JSON numbers."
    return None


def _is_nested_deeper(value: Any, most: int) -> bool:
    """Return whether lists and objects are nested more than `most` levels deep."""
    level = [value]
    for _ in range(most):
        level = [inner for parent in level for inner in _children(parent) if isinstance(inner, list | dict)]
        if not level:
            return False
    return True


def _children(value: Any) -> Collection[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
