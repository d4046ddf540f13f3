"""Sends one signed POST to one endpoint."""

from __future__ import annotations

import time
from importlib.metadata import version

import aiohttp

from server.jobs.webhooks.signing import build_signed_headers
from server.storage.tables import WebhookEndpointRow

TIMEOUT_S = 10.0
"""An endpoint that takes longer has failed: it should respond first and work afterwards."""

USER_AGENT = f"tuneloop/{version('tuneloop')}"


class UnreachableError(Exception):
    """There was no response. The message says why."""


class WebhookSender:
    """The HTTP client: no redirects (to targets that nobody configured), no cookies, no proxies."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        """Must be created within the event loop that uses it."""
        self._client = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json", "User-Agent": USER_AGENT},
        )
        self._timeout_s = timeout_s

    async def send(self, endpoint: WebhookEndpointRow, event_id: str, payload: str) -> int:
        """Send the event and return the status of the response.

        Raises:
            UnreachableError: there was no response in time.
        """
        now = int(time.time())
        headers = build_signed_headers(event_id, now, payload, _list_valid_secrets(endpoint, now))
        try:
            async with self._client.post(
                endpoint.url, data=payload.encode(), headers=headers, allow_redirects=False
            ) as answer:
                return answer.status
        except TimeoutError as error:
            raise UnreachableError(f"no answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: an invalid host name
            raise UnreachableError(f"{type(error).__name__}: {error}"[:300]) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


def _list_valid_secrets(endpoint: WebhookEndpointRow, now: int) -> list[str]:
    old = endpoint.old_secret if (endpoint.old_secret_until or 0) > now else None
    return [endpoint.secret, *([old] if old else [])]
