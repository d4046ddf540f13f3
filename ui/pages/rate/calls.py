"""The calls that the rating page makes: what an invited rater may know, the next pair, a vote, its undoing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ui.server_client import ServerClient


async def invitation(client: ServerClient, api_key: str) -> dict[str, Any]:
    """Who rates, in which campaign, how much is done and how much remains.

    Raises:
        UIError: like every call here: the server can't be reached or refuses.
    """
    return await client.call("GET", "/v1/invitation", api_key)


async def assignment(client: ServerClient, api_key: str, campaign: str) -> dict[str, Any]:
    """The rater's open pair, or the next one; its `comparison` is None when none is left."""
    return await client.call("POST", f"/v1/campaigns/{campaign}/assignments", api_key, {})


def draw(client: ServerClient, api_key: str, prompt: str, sampling: Mapping[str, Any]) -> AsyncGenerator[Any]:
    """The events of a blind comparison whose two models the server draws."""
    body = {"messages": [{"role": "user", "content": prompt}], "blind": True, "stream": True, **sampling}
    return client.stream("/v1/comparisons", api_key, body)


async def comparison(client: ServerClient, api_key: str, comparison_id: str) -> dict[str, Any]:
    """A stored comparison; names are null while it is blind."""
    return await client.call("GET", f"/v1/comparisons/{comparison_id}", api_key)


async def vote(client: ServerClient, api_key: str, comparison_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The stored rating, names revealed."""
    return await client.call("POST", f"/v1/comparisons/{comparison_id}/ratings", api_key, body)


async def withdraw(client: ServerClient, api_key: str, rating_id: str, rater: str) -> dict[str, Any]:
    """The rating that takes the vote back; the next vote on that comparison supersedes it."""
    return await client.call("POST", f"/v1/ratings/{rating_id}/withdraw", api_key, {"rater": rater} if rater else {})
