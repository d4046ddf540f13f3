"""API keys: creating, hashing, checking and revoking them.

A key is `sk-tuneloop-` and 43 random characters (256 bits). It can't be guessed, so a plain SHA-256 is a safe hash.
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
"""The format of a project's id. A project exists as soon as a key names it."""
REFRESH_S = 1.0
"""Seconds after which a key that was created or revoked by the command line takes effect, at the latest."""


@dataclass(frozen=True)
class APIKey:
    """A key as it is listed, without its secret."""

    id: str
    name: str
    prefix: str
    created_at: int
    revoked_at: int | None
    project: str
    is_admin: bool


@dataclass(frozen=True)
class Invitation:
    """One rater's invitation to one campaign."""

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
    """Whether it may set up webhooks and grant checkpoint permissions."""
    invitation: Invitation | None = None
    """Set for a campaign's rater; `server/arena/campaigns/invitations.py` has what that allows."""

    @property
    def rater(self) -> str | None:
        """The only rater that it may rate as; None if it may choose."""
        return self.invitation.rater if self.invitation else None

    @property
    def campaign(self) -> str | None:
        """Id of the campaign that it is restricted to."""
        return self.invitation.campaign_id if self.invitation else None


ANYBODY = Caller(None, DEFAULT_PROJECT, is_admin=True)
"""The caller on a keyless server: someone on this machine, who could create an admin key anyway."""


def create_key(
    session: Session, name: str, *, project: str = DEFAULT_PROJECT, is_admin: bool | None = None
) -> tuple[APIKey, str]:
    """Create a key; return its record and its secret, which is shown only this once.

    is_admin: None makes the very first key an admin's, since setting up a server needs one, and no later key.
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
    return _to_api_key(row), secret


def list_keys(session: Session) -> list[APIKey]:
    """Return every key ever created, oldest first; revoked ones have `revoked_at`."""
    return [_to_api_key(row) for row in session.scalars(select(APIKeyRow).order_by(APIKeyRow.created_at, APIKeyRow.id))]


def revoke_key(session: Session, key_id: str) -> bool:
    """Revoke the key; return whether it exists. Its row stays, so that the server doesn't become keyless again."""
    row = session.get(APIKeyRow, key_id)
    if row is None:
        return False
    row.revoked_at = row.revoked_at or now_s()
    return True


class KeyStore:
    """The valid keys. Reads the table at most once per `REFRESH_S`, so that a request costs no query."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._callers_by_hash: dict[str, Caller] = {}
        self._any_ever_made = False
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def is_required(self) -> bool:
        """Return whether requests need a key: once one was ever created, even if all have been revoked."""
        await self._refresh()
        return self._any_ever_made

    async def identify(self, secret: str) -> Caller | None:
        """Return the key's caller, or None if the key isn't valid."""
        await self._refresh()
        return self._callers_by_hash.get(_hash(secret))

    def invalidate(self) -> None:
        """Read the table again at the next request, after a key was created or revoked in this process."""
        self._read_at = float("-inf")

    async def _refresh(self) -> None:
        if self._is_fresh():
            return
        # Other requests wait meanwhile: before the first read, assuming "no keys" would let anyone in.
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


def _to_api_key(row: APIKeyRow) -> APIKey:
    return APIKey(row.id, row.name, row.prefix, row.created_at, row.revoked_at, row.project, row.is_admin)
