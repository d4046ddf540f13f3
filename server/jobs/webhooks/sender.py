"""One signed POST to one endpoint. Knows neither the outbox nor when to try again."""

from __future__ import annotations

import time
from importlib.metadata import version

import aiohttp

from server.jobs.webhooks.signing import signed_headers
from server.storage.tables import WebhookEndpointRow

TIMEOUT_S = 10.0
"""An endpoint that takes longer has not taken the event. It should answer first and work afterwards."""
USER_AGENT = f"tuneloop/{version('tuneloop')}"


class UnreachableError(Exception):
    """The endpoint gave no answer. The message says why."""


class Sender:
    """Holds the HTTP client: no redirects (the target would be somebody else's choice), no cookies, no proxies."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        """Made inside the event loop that will use it."""
        self._client = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json", "User-Agent": USER_AGENT},
        )
        self._timeout_s = timeout_s

    async def send(self, endpoint: WebhookEndpointRow, event_id: str, payload: str) -> int:
        """The status of the endpoint's answer.

        Raises:
            UnreachableError: there was no answer in time.
        """
        now = int(time.time())
        headers = signed_headers(event_id, now, payload, _good_secrets(endpoint, now))
        try:
            async with self._client.post(
                endpoint.url, data=payload.encode(), headers=headers, allow_redirects=False
            ) as answer:
                return answer.status
        except TimeoutError as error:
            raise UnreachableError(f"no answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a host name that is none
            raise UnreachableError(f"{type(error).__name__}: {error}"[:300]) from error

    async def close(self) -> None:
        """Returns when every connection is closed."""
        await self._client.close()


def _good_secrets(endpoint: WebhookEndpointRow, now: int) -> list[str]:
    old = endpoint.old_secret if (endpoint.old_secret_until or 0) > now else None
    return [endpoint.secret, *([old] if old else [])]
