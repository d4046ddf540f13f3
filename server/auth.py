"""Owns API keys: makes them, hashes them, checks them. Knows nothing of routes.

A key is `sk-tuneloop-` and 43 random characters (256 bits): nothing to guess, so a plain SHA-256 is a safe hash.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.database import Database
from server.tables import APIKeyRow, new_id, now_s

KEY_PREFIX = "sk-tuneloop-"
REFRESH_S = 1.0
"""A key made or revoked elsewhere (by the command line) counts after at most this many seconds."""


@dataclass(frozen=True)
class APIKey:
    """A key as it is listed: never the key itself."""

    id: str
    name: str
    prefix: str
    created_at: int
    revoked_at: int | None


def create_key(session: Session, name: str) -> tuple[APIKey, str]:
    """A new key's record and the key, which is shown this once."""
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    row = APIKeyRow(
        id=new_id("key"), name=name, prefix=secret[: len(KEY_PREFIX) + 4], sha256=_hash(secret), created_at=now_s()
    )
    session.add(row)
    return _shown(row), secret


def list_keys(session: Session) -> list[APIKey]:
    """Every key that was ever made, oldest first, the revoked ones with the time of it."""
    return [_shown(row) for row in session.scalars(select(APIKeyRow).order_by(APIKeyRow.created_at, APIKeyRow.id))]


def revoke_key(session: Session, key_id: str) -> bool:
    """Whether there was such a key. A revoked key stays in the list, so that the door it guarded stays shut."""
    row = session.get(APIKeyRow, key_id)
    if row is None:
        return False
    row.revoked_at = row.revoked_at or now_s()
    return True


class KeyStore:
    """Which keys are good now. Reads the table at most once in `REFRESH_S`, so that a request costs no query."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids_by_hash: dict[str, str] = {}
        self._any_ever_made = False
        self._read_at = float("-inf")

    async def required(self) -> bool:
        """Whether requests need a key: from the first key ever made, even when all are revoked since."""
        await self._refresh()
        return self._any_ever_made

    async def identify(self, secret: str) -> str | None:
        """The id of a good key, or None."""
        await self._refresh()
        return self._ids_by_hash.get(_hash(secret))

    async def _refresh(self) -> None:
        if time.monotonic() - self._read_at < REFRESH_S:
            return
        self._read_at = time.monotonic()
        rows = await self._database.run(lambda session: list(session.scalars(select(APIKeyRow))))
        self._any_ever_made = bool(rows)
        self._ids_by_hash = {row.sha256: row.id for row in rows if row.revoked_at is None}


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _shown(row: APIKeyRow) -> APIKey:
    return APIKey(row.id, row.name, row.prefix, row.created_at, row.revoked_at)
