"""The calls that the campaigns page makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ui.server_client import ServerClient

CREATE_TIMEOUT_S = 60.0
"""Seconds in which the server reads and checks a file of prompts."""


async def list_campaigns(client: ServerClient, api_key: str) -> list[dict[str, Any]]:
    """The newest hundred campaigns.

    Raises:
        UIError: like every call here: the server can't be reached or refuses.
    """
    page = await client.call("GET", "/v1/campaigns", api_key, query={"limit": 100})
    return list(page.get("data", []))


async def get_campaign(client: ServerClient, api_key: str, campaign: str) -> dict[str, Any]:
    """The campaign with how far it is."""
    return await client.call("GET", f"/v1/campaigns/{campaign}", api_key)


async def create(client: ServerClient, api_key: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The new campaign."""
    return await client.call("POST", "/v1/campaigns", api_key, body, timeout_s=CREATE_TIMEOUT_S)


async def change_state(client: ServerClient, api_key: str, campaign: str, name: str) -> dict[str, Any]:
    """The campaign after "close" or "reopen"."""
    return await client.call("POST", f"/v1/campaigns/{campaign}/{name}", api_key)


async def delete(client: ServerClient, api_key: str, campaign: str) -> None:
    """Deletes a campaign without votes."""
    await client.call("DELETE", f"/v1/campaigns/{campaign}", api_key)


async def failed_answers(client: ServerClient, api_key: str, campaign: str) -> list[dict[str, Any]]:
    """The first answers that failed, each with its reason."""
    query = {"status": "failed", "limit": 5}
    page = await client.call("GET", f"/v1/campaigns/{campaign}/answers", api_key, query=query)
    return list(page.get("data", []))


async def invitations(client: ServerClient, api_key: str, campaign: str) -> list[dict[str, Any]]:
    """The newest hundred invitations, without their tokens."""
    page = await client.call("GET", f"/v1/campaigns/{campaign}/invitations", api_key, query={"limit": 100})
    return list(page.get("data", []))


async def invite(client: ServerClient, api_key: str, campaign: str, rater: str) -> dict[str, Any]:
    """The new invitation with its token, which the server shows this once."""
    return await client.call("POST", f"/v1/campaigns/{campaign}/invitations", api_key, {"rater": rater})


async def revoke(client: ServerClient, api_key: str, campaign: str, invitation: str) -> None:
    """From now on the invitation opens nothing."""
    await client.call("DELETE", f"/v1/campaigns/{campaign}/invitations/{invitation}", api_key)


async def files(client: ServerClient, api_key: str) -> list[dict[str, Any]]:
    """The stored JSONL files that may hold prompts, newest first, what was held back for evaluation foremost."""
    page = await client.call("GET", "/v1/files", api_key, query={"limit": 200, "order": "desc"})
    usable = [file for file in page.get("data", []) if file.get("purpose") in ("fine-tune", "user_data")]
    return sorted(usable, key=lambda file: "holdout" not in str(file.get("filename")))
