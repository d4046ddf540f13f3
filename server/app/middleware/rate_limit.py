"""Pure ASGI middleware that limits each caller's requests per minute.

A token bucket for each key, or on a keyless server for each client address. The buckets are in memory; a restart
refills them, which is harmless. The headers are OpenAI's: https://platform.openai.com/docs/guides/rate-limits
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.keys import ANYBODY
from server.wire.errors import TooManyRequests

SWEEP_AT = 10_000
"""With more buckets than this, full ones are removed: they are the same as new ones."""


@dataclass
class _Bucket:
    tokens: float
    filled_at_s: float


class RateLimit:
    """Responds with 429 to callers over `requests_per_minute`, and adds rate limit headers to all responses under
    /v1."""

    def __init__(
        self, app: ASGIApp, requests_per_minute: int | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """requests_per_minute: None means no limit, and no headers."""
        self.app = app
        self.limit = requests_per_minute
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.limit is None or scope["type"] != "http" or not f"{scope['path']}/".startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        bucket = self._refill(_get_bucket_key(scope), self.limit)
        allowed = bucket.tokens >= 1
        bucket.tokens -= allowed
        headers = self._headers(bucket, self.limit)

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        if allowed:
            await self.app(scope, receive, send_with_limits)
        else:
            await self._refusal(bucket, self.limit).response()(scope, receive, send_with_limits)

    def _refill(self, who: str, limit: int) -> _Bucket:
        now_s = self._clock()
        if who not in self._buckets and len(self._buckets) >= SWEEP_AT:
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if now_s - bucket.filled_at_s < 60}
        bucket = self._buckets.setdefault(who, _Bucket(limit, now_s))
        bucket.tokens = min(limit, bucket.tokens + (now_s - bucket.filled_at_s) * limit / 60)
        bucket.filled_at_s = now_s
        return bucket

    def _headers(self, bucket: _Bucket, limit: int) -> dict[str, str]:
        return {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(int(bucket.tokens)),
            "x-ratelimit-reset-requests": duration((limit - bucket.tokens) * 60 / limit),
        }

    def _refusal(self, bucket: _Bucket, limit: int) -> TooManyRequests:
        wait_s = (1 - bucket.tokens) * 60 / limit
        return TooManyRequests(
            f"Rate limit reached: {limit} requests per minute. Try again in {duration(wait_s)}, or ask the server's "
            "operator to raise requests_per_minute.",
            retry_after_s=wait_s,
        )


def duration(seconds: float) -> str:
    """Return a duration in the format of OpenAI's headers: `250ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    rounded = round(seconds, 3)
    if rounded < 60:
        return f"{rounded:g}s"
    minutes, rest = divmod(rounded, 60)
    return f"{minutes:.0f}m{round(rest, 3):g}s"


def _get_bucket_key(scope: Scope) -> str:
    key_id: str | None = scope.get("state", {}).get("caller", ANYBODY).key_id
    return key_id or (scope["client"][0] if scope.get("client") else "unknown")
