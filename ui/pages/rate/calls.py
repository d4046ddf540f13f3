"""The API calls of the rating page: the invitation, the next pair, submit a rating, undo it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ui.server_client import ServerClient


async def invitation(client: ServerClient, api_key: str) -> dict[str, Any]:
    """Return the rater, the campaign, and the progress.

    Raises:
        UIError: the server can't be reached or refuses, as for every call here.
    """
    return await client.call("GET", "/v1/invitation", api_key)


async def assignment(client: ServerClient, api_key: str, campaign: str) -> dict[str, Any]:
    """Return the rater's open pair, or the next one; `comparison` is None if none is left."""
    return await client.call("POST", f"/v1/campaigns/{campaign}/assignments", api_key, {})


def draw(client: ServerClient, api_key: str, prompt: str, sampling: Mapping[str, Any]) -> AsyncGenerator[Any]:
    """Yield the events of a blind comparison with two models picked by the server."""
    body = {"messages": [{"role": "user", "content": prompt}], "blind": True, "stream": True, **sampling}
    return client.stream("/v1/comparisons", api_key, body)


async def comparison(client: ServerClient, api_key: str, comparison_id: str) -> dict[str, Any]:
    """Return a stored comparison; names are null while it is blind."""
    return await client.call("GET", f"/v1/comparisons/{comparison_id}", api_key)


async def vote(client: ServerClient, api_key: str, comparison_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Submit a rating and return it, with the models' names."""
    return await client.call("POST", f"/v1/comparisons/{comparison_id}/ratings", api_key, body)


async def withdraw(client: ServerClient, api_key: str, rating_id: str, rater: str) -> dict[str, Any]:
    """Withdraw a rating; return the one that replaces it, which the next rating must supersede."""
    return await client.call("POST", f"/v1/ratings/{rating_id}/withdraw", api_key, {"rater": rater} if rater else {})
