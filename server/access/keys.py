"""Owns API keys: makes them, hashes them, checks them, and says whose they are. Knows nothing of routes.

A key is `sk-tuneloop-` and 43 random characters (256 bits): nothing to guess, so a plain SHA-256 is a safe hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.storage.database import Database
from server.storage.tables import DEFAULT_PROJECT, APIKeyRow, new_id, now_s

KEY_PREFIX = "sk-tuneloop-"
PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""What a project's id looks like. A project is there as soon as a key names it."""
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
    project: str
    is_admin: bool


@dataclass(frozen=True)
class Invitation:
    """One rater's way into one campaign."""

    id: str
    campaign_id: str
    rater: str


@dataclass(frozen=True)
class Caller:
    """Who makes a request."""

    key_id: str | None
    """None on a keyless server."""
    project: str
    is_admin: bool
    """Whether it may set up webhooks and let projects use checkpoints."""
    invitation: Invitation | None = None
    """Where it is a campaign's rater; `server/arena/campaigns/invitations.py` says what that opens."""

    @property
    def rater(self) -> str | None:
        """In whose name alone it votes; None where it may say so itself."""
        return self.invitation.rater if self.invitation else None

    @property
    def campaign(self) -> str | None:
        """Id of the campaign that it is confined to."""
        return self.invitation.campaign_id if self.invitation else None


ANYBODY = Caller(None, DEFAULT_PROJECT, is_admin=True)
"""Who comes to a keyless server: somebody on this machine, who could make an admin's key as well."""


def create_key(
    session: Session, name: str, *, project: str = DEFAULT_PROJECT, is_admin: bool | None = None
) -> tuple[APIKey, str]:
    """A new key's record and the key, which is shown this once.

    is_admin: None makes the first key ever an admin's, as whoever sets a server up needs one, and no later key.
    """
    if is_admin is None:
        is_admin = session.scalar(select(APIKeyRow.id).limit(1)) is None
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    row = APIKeyRow(
        id=new_id("key"),
        name=name,
        prefix=secret[: len(KEY_PREFIX) + 4],
        sha256=_hash(secret),
        created_at=now_s(),
        project=project,
        is_admin=is_admin,
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
        self._callers_by_hash: dict[str, Caller] = {}
        self._any_ever_made = False
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def required(self) -> bool:
        """Whether requests need a key: from the first key ever made, even when all are revoked since."""
        await self._refresh()
        return self._any_ever_made

    async def identify(self, secret: str) -> Caller | None:
        """Whose key it is, or None where it is not a good one."""
        await self._refresh()
        return self._callers_by_hash.get(_hash(secret))

    def forget(self) -> None:
        """The next request reads the table again: a key was made or revoked here, and counts at once."""
        self._read_at = float("-inf")

    async def _refresh(self) -> None:
        if self._is_fresh():
            return
        # Whoever comes meanwhile waits: before the first reading, "no keys" would be a guess that opens the door.
        async with self._reading:
            if self._is_fresh():
                return
            rows = await self._database.run(lambda session: list(session.scalars(select(APIKeyRow))))
            self._any_ever_made = bool(rows)
            self._callers_by_hash = {
                row.sha256: Caller(row.id, row.project, row.is_admin) for row in rows if row.revoked_at is None
            }
            self._read_at = time.monotonic()

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._read_at < REFRESH_S


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _shown(row: APIKeyRow) -> APIKey:
    return APIKey(row.id, row.name, row.prefix, row.created_at, row.revoked_at, row.project, row.is_admin)
