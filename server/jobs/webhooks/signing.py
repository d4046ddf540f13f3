"""Secrets and signatures of webhooks, as the SDK's `client.webhooks.unwrap` checks them.

The scheme is Standard Webhooks' (https://www.standardwebhooks.com): HMAC-SHA256 over `id.timestamp.body`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping

SECRET_PREFIX = "whsec_"  # noqa: S105 (what a secret begins with)
HINT_CHARACTERS = 4


def new_secret() -> str:
    """Return a new secret: `whsec_` and 256 random bits in base64."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def mask_secret(secret: str) -> str:
    """Return a secret's last characters, enough to tell it from others."""
    return f"{SECRET_PREFIX}…{secret[-HINT_CHARACTERS:]}"


def build_signed_headers(
    event_id: str, timestamp_s: int, body: str, signing_secrets: Iterable[str]
) -> Mapping[str, str]:
    """Return the headers that authenticate the body, with a signature for each valid secret."""
    signatures = [_sign(secret, f"{event_id}.{timestamp_s}.{body}") for secret in signing_secrets]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }


def _sign(secret: str, signed: str) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest()).decode()
