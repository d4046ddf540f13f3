"""The API calls of the training page: jobs, their events, preflight.

Every call raises `UIError` when the server can't be reached or refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ui.pages.data.calls import INSPECTION_S
from ui.server_client import ServerClient

JOBS = "/v1/fine_tuning/jobs"
EVENTS_PAGE = 1000
PAUSE_S = 30.0
"""Seconds for a pause: the server responds when the run has written its checkpoint, at most after ten seconds."""


async def preflight(client: ServerClient, api_key: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the preflight of a job with this body."""
    return await client.call("POST", "/v1/fine_tuning/preflight", api_key, body, timeout_s=INSPECTION_S)


async def create(client: ServerClient, api_key: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Create a job and return it."""
    return await client.call("POST", JOBS, api_key, body, timeout_s=60.0)


async def jobs(client: ServerClient, api_key: str, limit: int = 30) -> list[dict[str, Any]]:
    """Return the jobs, newest first."""
    page = await client.call("GET", JOBS, api_key, query={"limit": limit})
    return list(page.get("data", []))


async def job(client: ServerClient, api_key: str, job_id: str) -> dict[str, Any]:
    """Return one job."""
    return await client.call("GET", f"{JOBS}/{job_id}", api_key)


async def change(client: ServerClient, api_key: str, job_id: str, change: str) -> dict[str, Any]:
    """Pause, resume or cancel the job and return it."""
    return await client.call("POST", f"{JOBS}/{job_id}/{change}", api_key, {}, timeout_s=PAUSE_S)


async def checkpoints(client: ServerClient, api_key: str, job_id: str) -> list[dict[str, Any]]:
    """Return the served checkpoints, newest first."""
    page = await client.call("GET", f"{JOBS}/{job_id}/checkpoints", api_key, query={"limit": 50})
    return list(page.get("data", []))


async def events_since(client: ServerClient, api_key: str, job_id: str, last_id: str | None) -> list[dict[str, Any]]:
    """Return the job's events after `last_id`, oldest first; all of them if it is None."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        query = {"limit": EVENTS_PAGE if last_id is None else 100, "after": after}
        page = await client.call("GET", f"{JOBS}/{job_id}/events", api_key, query=query)
        for event in page.get("data", []):
            if event["id"] == last_id:
                return found[::-1]
            found.append(event)
        if not page.get("has_more") or not page.get("data"):
            return found[::-1]
        after = page["data"][-1]["id"]
