"""Comparisons put into the database as they would be stored, and votes cast on them over HTTP."""

from __future__ import annotations

from typing import Any

import httpx

from server.storage.tables import ComparisonRow, new_id, now_s
from tests.server.conftest import Gateway

ONE, OTHER = "ft:base:personal:captain:aaaaaaaa", "ft:base:personal:poet:bbbbbbbb"


def add_comparison(
    gateway: Gateway,
    left: str = "the one answer",
    right: str = "the other answer",
    *,
    prompt: str = "What now?",
    models: tuple[str, str] = (ONE, OTHER),
    finish_reasons: tuple[str, str] = ("stop", "stop"),
    **columns: Any,
) -> str:
    """The id of a new comparison, blind unless `columns` says otherwise."""
    sides = [
        {"model": model, "content": content, "finish_reason": reason, "completion_tokens": len(content.split()),
         "time_to_first_token_s": 0.1, "duration_s": 0.2}
        for model, content, reason in zip(models, (left, right), finish_reasons, strict=True)
    ]  # fmt: skip
    row: dict[str, Any] = {
        "id": new_id("cmp"), "created_at": now_s(), "blind": True, "sampling": {"temperature": 0.5},
        "messages": [{"role": "user", "content": prompt}], "left": sides[0], "right": sides[1], **columns,
    }  # fmt: skip
    with gateway.database.session() as session:
        session.add(ComparisonRow(**row))
    return str(row["id"])


def vote(gateway: Gateway, comparison_id: str, verdict: str = "left", **body: Any) -> httpx.Response:
    """The answer to a vote."""
    return gateway.http.post(f"/v1/comparisons/{comparison_id}/ratings", json={"verdict": verdict, **body})


def voted(gateway: Gateway, comparison_id: str, verdict: str = "left", **body: Any) -> dict[str, Any]:
    """The rating that a vote made."""
    response = vote(gateway, comparison_id, verdict, **body)
    assert response.status_code == 201, response.text
    rating: dict[str, Any] = response.json()
    return rating
