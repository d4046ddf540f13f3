"""The API calls of the data page: files, their reports, and cleaning.

Every call raises `UIError` when the server can't be reached or refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ui.server_client import ServerClient

INSPECTION_S = 320.0
"""A little longer than the server's limit for an inspection."""
PAGE = 5
"""Examples on one page."""


async def files(client: ServerClient, api_key: str) -> list[dict[str, Any]]:
    """Return the files of examples, newest first."""
    page = await client.call("GET", "/v1/files", api_key, query={"purpose": "fine-tune", "limit": 200})
    return list(page.get("data", []))


async def file(client: ServerClient, api_key: str, file_id: str) -> dict[str, Any]:
    """Return one file."""
    return await client.call("GET", f"/v1/files/{file_id}", api_key)


async def delete(client: ServerClient, api_key: str, file_id: str) -> None:
    """Delete a file permanently."""
    await client.call("DELETE", f"/v1/files/{file_id}", api_key)


async def report(client: ServerClient, api_key: str, file_id: str, base_model: str) -> dict[str, Any]:
    """Return the report on a file; with `base_model` '', lengths are in characters."""
    body = {"base_model": base_model or None}
    return await client.call("POST", f"/v1/files/{file_id}/report", api_key, body, timeout_s=INSPECTION_S)


async def examples(client: ServerClient, api_key: str, file_id: str, base_model: str, offset: int) -> dict[str, Any]:
    """Return a page of examples, split into trained parts and context."""
    query = {"base_model": base_model or None, "offset": offset, "limit": PAGE}
    path = f"/v1/files/{file_id}/examples"
    return await client.call("GET", path, api_key, query=query, timeout_s=INSPECTION_S)


async def clean(client: ServerClient, api_key: str, file_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Clean the file and return the report and the new file."""
    body = {"settings": dict(settings)}
    return await client.call("POST", f"/v1/files/{file_id}/clean", api_key, body, timeout_s=INSPECTION_S)
