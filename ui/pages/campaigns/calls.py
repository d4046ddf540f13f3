"""The API calls of the campaigns page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ui.server_client import ServerClient

CREATE_TIMEOUT_S = 60.0
"""Seconds that the server may take to read and check a file of prompts."""


async def list_campaigns(client: ServerClient, api_key: str) -> list[dict[str, Any]]:
    """Return the newest hundred campaigns.

    Raises:
        UIError: the server can't be reached or refuses, as for every call here.
    """
    page = await client.call("GET", "/v1/campaigns", api_key, query={"limit": 100})
    return list(page.get("data", []))


async def get_campaign(client: ServerClient, api_key: str, campaign: str) -> dict[str, Any]:
    """Return the campaign with its progress."""
    return await client.call("GET", f"/v1/campaigns/{campaign}", api_key)


async def create(client: ServerClient, api_key: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Create a campaign and return it."""
    return await client.call("POST", "/v1/campaigns", api_key, body, timeout_s=CREATE_TIMEOUT_S)


async def change_state(client: ServerClient, api_key: str, campaign: str, name: str) -> dict[str, Any]:
    """Close or reopen the campaign and return it."""
    return await client.call("POST", f"/v1/campaigns/{campaign}/{name}", api_key)


async def delete(client: ServerClient, api_key: str, campaign: str) -> None:
    """Delete a campaign without ratings."""
    await client.call("DELETE", f"/v1/campaigns/{campaign}", api_key)


async def failed_answers(client: ServerClient, api_key: str, campaign: str) -> list[dict[str, Any]]:
    """Return the first failed answers, each with its reason."""
    query = {"status": "failed", "limit": 5}
    page = await client.call("GET", f"/v1/campaigns/{campaign}/answers", api_key, query=query)
    return list(page.get("data", []))


async def invitations(client: ServerClient, api_key: str, campaign: str) -> list[dict[str, Any]]:
    """Return the newest hundred invitations, without their tokens."""
    page = await client.call("GET", f"/v1/campaigns/{campaign}/invitations", api_key, query={"limit": 100})
    return list(page.get("data", []))


async def invite(client: ServerClient, api_key: str, campaign: str, rater: str) -> dict[str, Any]:
    """Create an invitation and return it with its token, which is shown only once."""
    return await client.call("POST", f"/v1/campaigns/{campaign}/invitations", api_key, {"rater": rater})


async def revoke(client: ServerClient, api_key: str, campaign: str, invitation: str) -> None:
    """Revoke the invitation."""
    await client.call("DELETE", f"/v1/campaigns/{campaign}/invitations/{invitation}", api_key)


async def files(client: ServerClient, api_key: str) -> list[dict[str, Any]]:
    """Return the JSONL files that may have prompts: holdouts first, then the newest."""
    page = await client.call("GET", "/v1/files", api_key, query={"limit": 200, "order": "desc"})
    usable = [file for file in page.get("data", []) if file.get("purpose") in ("fine-tune", "user_data")]
    return sorted(usable, key=lambda file: "holdout" not in str(file.get("filename")))
