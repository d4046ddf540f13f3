"""The API calls of the leaderboard page: the leaderboard, the campaigns to filter by, a job on the ratings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ui.server_client import ServerClient

FIGURES_TIMEOUT_S = 60.0
"""Seconds for the leaderboard: a large one is recomputed when there are new ratings."""


async def leaderboard(client: ServerClient, api_key: str, query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaderboard with these filters.

    Raises:
        UIError: the server can't be reached or refuses, as for every call here.
    """
    return await client.call("GET", "/v1/leaderboard", api_key, query=query, timeout_s=FIGURES_TIMEOUT_S)


async def campaigns(client: ServerClient, api_key: str) -> list[dict[str, Any]]:
    """Return the newest hundred campaigns."""
    page = await client.call("GET", "/v1/campaigns", api_key, query={"limit": 100})
    return list(page.get("data", []))


async def train(client: ServerClient, api_key: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Start a fine-tuning job on the ratings and return it."""
    path = "/v1/ratings/fine_tuning_jobs"
    return await client.call("POST", path, api_key, body, timeout_s=FIGURES_TIMEOUT_S)
