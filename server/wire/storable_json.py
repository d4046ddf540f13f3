"""JSON that can leave again as it came: a request can say what no answer can, half a character or NaN, say."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

MOST_NESTED = 32
"""Lists and objects in each other: more than any message needs, and few enough for everything that reads it again."""


def text_fault(value: Any) -> str | None:
    """Why this JSON value can't be told again, with the remedy; None where it can."""
    if _is_deeper(value, MOST_NESTED):
        return (
            f"has more than {MOST_NESTED} lists and objects in each other. Nest less, or give the inner ones as text."
        )
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair (a broken emoji, say). Send whole characters."
    except ValueError:
        return "holds NaN or Infinity, or a number too large for JSON. Send numbers that JSON has."
    return None


def _is_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [inner for one in level for inner in _inside(one) if isinstance(inner, list | dict)]
        if not level:
            return False
    return True


def _inside(value: Any) -> Collection[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
