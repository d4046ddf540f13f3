"""Creates and revokes keys over HTTP, with rules that keep admins from locking themselves out.

The command line, which is always available on the server's machine, uses `keys` directly.
"""

from __future__ import annotations

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from server.access.keys import PROJECT, APIKey, create_key, list_keys
from server.storage.tables import APIKeyRow, is_id, now_s
from server.wire.errors import BadRequest, Conflict, NotFound, Unauthorized

MAX_NAME = 100
"""Longest name of a key, in characters."""


def create(session: Session, name: str, project: str, is_admin: bool | None, *, keyless: bool) -> tuple[APIKey, str]:
    """Create a key; return it with its secret.

    keyless: whether the caller has no key. Such a caller can only create the very first key, after which every request
    needs one.

    Raises:
        BadRequest: the name or project is invalid, or the first key isn't to be an admin's.
        Unauthorized: keyless, and someone else has created the first key.
    """
    _check_fields(name, project)
    if keyless:
        _lock_for_first_key(session)
    if keyless and is_admin is False:
        raise BadRequest(
            "admin is false, but the first key must be an admin key: without one, no more keys could be created "
            "here. Leave out admin, and create other keys afterwards.",
            code="first_key_is_admins",
            param="admin",
        )
    return create_key(session, name.strip(), project=project, is_admin=is_admin)


def revoke(session: Session, key_id: str, *, force: bool) -> APIKey:
    """Revoke the key as of the commit, and return it; one that was revoked before is returned unchanged.

    force: allow revoking the last admin's key.

    Raises:
        NotFound: there is no such key.
        Conflict: it is the last admin's.
    """
    # A write that changes nothing: two admins who revoke each other's keys are serialized by it.
    session.execute(update(APIKeyRow).where(APIKeyRow.is_admin).values(name=APIKeyRow.name))
    row = session.get(APIKeyRow, key_id) if is_id(key_id) else None
    if row is None:
        raise NotFound(
            f"No key has the id {key_id[:100]!r}. GET /v1/keys lists them.", code="key_not_found", param="id"
        )
    if row.revoked_at is None:
        if row.is_admin and not force and _count_admins(session) == 1:
            raise _last_admin_error(row)
        row.revoked_at = now_s()
    return next(key for key in list_keys(session) if key.id == key_id)


def _lock_for_first_key(session: Session) -> None:
    """Lock the table until the transaction ends. Raises: Unauthorized if a key exists."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE"))
    else:  # a write that changes nothing makes SQLite's other writers wait
        session.execute(update(APIKeyRow).where(APIKeyRow.id == "").values(name=""))
    if session.scalar(select(APIKeyRow.id).limit(1)) is not None:
        raise Unauthorized(
            "This server's first API key has just been created, so every request now needs a key, sent as "
            "`Authorization: Bearer KEY`. Send the request again with it."
        )


def _check_fields(name: str, project: str) -> None:
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise BadRequest(
            f"name must be 1 to {MAX_NAME} printable characters: who or what will use the key.",
            code="invalid_value",
            param="name",
        )
    if not PROJECT.fullmatch(project):
        raise BadRequest(
            f"project is {project[:100]!r}, but must be 1 to 64 letters, digits, hyphens or underscores, starting "
            "with a letter or digit, such as search.",
            code="invalid_value",
            param="project",
        )


def _count_admins(session: Session) -> int:
    count = select(func.count()).select_from(APIKeyRow).where(APIKeyRow.is_admin, APIKeyRow.revoked_at.is_(None))
    return session.scalar(count) or 0


def _last_admin_error(row: APIKeyRow) -> Conflict:
    return Conflict(
        f"{row.id} is the last admin key: without it, no one can create keys or set up webhooks here. Create "
        "another admin key first, or send force=true; after that, only `tuneloop keys create --admin` on the "
        "server's machine can create one.",
        code="last_admin_key",
        param="id",
    )
