"""The calls of the keys page: keys, webhook endpoints, settings. All want an admin's key where keys are set."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ui.server_client import ServerClient

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Overview:
    """What an admin may see, as it was at one moment."""

    keys: Sequence[Row] = ()
    webhooks: Sequence[Row] = ()
    settings: Sequence[Row] = ()

    @property
    def keyless(self) -> bool:
        """Whether whoever is on the server's machine may do anything."""
        return not self.keys


async def load_overview(client: ServerClient, api_key: str) -> Overview:
    """Everything that the page shows.

    Raises:
        UIError: the server can't be reached, or the key is no admin's.
    """
    keys, webhooks, settings = await asyncio.gather(
        client.call("GET", "/v1/keys", api_key),
        client.call("GET", "/v1/webhook_endpoints", api_key, query={"limit": 100}),
        client.call("GET", "/v1/settings", api_key),
    )
    return Overview(keys["data"], webhooks["data"], settings["data"])


async def create(client: ServerClient, api_key: str, name: str, project: str, *, admin: bool | None) -> Row:
    """The new key, `key` among its fields, which no later answer has. Raises: UIError."""
    body = {"name": name} | ({"project": project} if project else {}) | ({} if admin is None else {"admin": admin})
    return await client.call("POST", "/v1/keys", api_key, body)


async def revoke(client: ServerClient, api_key: str, key_id: str, *, force: bool) -> Row:
    """The key, which is refused from now on. Raises: UIError."""
    query = {"force": "true"} if force else None
    return await client.call("DELETE", f"/v1/keys/{key_id}", api_key, query=query)
