"""The API calls of the keys page: keys, webhook endpoints, settings. All need an admin key if there are keys."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ui.server_client import ServerClient

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Overview:
    """Everything on the page, as of one moment."""

    keys: Sequence[Row] = ()
    webhooks: Sequence[Row] = ()
    settings: Sequence[Row] = ()

    @property
    def keyless(self) -> bool:
        """Whether the server works without keys."""
        return not self.keys


async def load_overview(client: ServerClient, api_key: str) -> Overview:
    """Return everything that the page shows.

    Raises:
        UIError: the server can't be reached, or the key isn't an admin key.
    """
    keys, webhooks, settings = await asyncio.gather(
        client.call("GET", "/v1/keys", api_key),
        client.call("GET", "/v1/webhook_endpoints", api_key, query={"limit": 100}),
        client.call("GET", "/v1/settings", api_key),
    )
    return Overview(keys["data"], webhooks["data"], settings["data"])


async def create(client: ServerClient, api_key: str, name: str, project: str, *, admin: bool | None) -> Row:
    """Create a key and return it; only this response contains the secret, `key`. Raises: UIError."""
    body = {"name": name} | ({"project": project} if project else {}) | ({} if admin is None else {"admin": admin})
    return await client.call("POST", "/v1/keys", api_key, body)


async def revoke(client: ServerClient, api_key: str, key_id: str, *, force: bool) -> Row:
    """Revoke the key and return it. Raises: UIError."""
    query = {"force": "true"} if force else None
    return await client.call("DELETE", f"/v1/keys/{key_id}", api_key, query=query)
