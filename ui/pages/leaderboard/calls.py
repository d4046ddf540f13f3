"""The calls that the leaderboard page makes: the figures, the campaigns to choose from, a job from the votes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ui.server_client import ServerClient

FIGURES_TIMEOUT_S = 60.0
"""Seconds for the figures: a large arena is rated anew when votes have come in."""


async def leaderboard(client: ServerClient, api_key: str, query: Mapping[str, Any]) -> dict[str, Any]:
    """The leaderboard under these filters.

    Raises:
        UIError: like every call here: the server can't be reached or refuses.
    """
    return await client.call("GET", "/v1/leaderboard", api_key, query=query, timeout_s=FIGURES_TIMEOUT_S)


async def campaigns(client: ServerClient, api_key: str) -> list[dict[str, Any]]:
    """The newest hundred campaigns."""
    page = await client.call("GET", "/v1/campaigns", api_key, query={"limit": 100})
    return list(page.get("data", []))


async def train(client: ServerClient, api_key: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The fine-tuning job that was made from the votes."""
    path = "/v1/ratings/fine_tuning_jobs"
    return await client.call("POST", path, api_key, body, timeout_s=FIGURES_TIMEOUT_S)
