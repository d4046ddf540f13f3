"""OpenAI's list object: a page with `first_id`, `last_id` and `has_more`, which the SDK's pagers follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def list_page(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """The page that holds `items`."""
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
