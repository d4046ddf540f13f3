"""Makes and revokes keys for whoever asks over HTTP, so that nobody locks the admins out by mistake.

What a key is stands in `keys`; the command line, which its user can always reach, asks that directly.
"""

from __future__ import annotations

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from server.access.keys import PROJECT, APIKey, create_key, list_keys
from server.storage.tables import APIKeyRow, is_id, now_s
from server.wire.errors import BadRequest, Conflict, NotFound, Unauthorized

MAX_NAME = 100
"""Characters of a key's name."""


def make(session: Session, name: str, project: str, is_admin: bool | None, *, keyless: bool) -> tuple[APIKey, str]:
    """The new key and its secret.

    keyless: whether whoever asks has no key, and so can make the first ever and no other: from it on every request
    needs one.

    Raises:
        BadRequest: name or project can't be one, or the first key would be no admin's.
        Unauthorized: keyless, and somebody else's was the first.
    """
    _check(name, project)
    if keyless:
        _be_the_first(session)
    if keyless and is_admin is False:
        raise BadRequest(
            "admin is false, but the first key must be an admin's: without one nobody could make another here. "
            "Leave admin out, and make plain keys afterwards.",
            code="first_key_is_admins",
            param="admin",
        )
    return create_key(session, name.strip(), project=project, is_admin=is_admin)


def revoke(session: Session, key_id: str, *, force: bool) -> APIKey:
    """The key, which is good for nothing from the commit on. Revoked before: as it was.

    force: whether the last admin's key may go, too.

    Raises:
        NotFound: there is no such key.
        Conflict: it is the last admin's.
    """
    # A write, be it of nothing, makes two who revoke each other's keys wait for one another.
    session.execute(update(APIKeyRow).where(APIKeyRow.is_admin).values(name=APIKeyRow.name))
    row = session.get(APIKeyRow, key_id) if is_id(key_id) else None
    if row is None:
        raise NotFound(
            f"No key has the id {key_id[:100]!r}. GET /v1/keys lists them.", code="key_not_found", param="id"
        )
    if row.revoked_at is None:
        if row.is_admin and not force and _admins_left(session) == 1:
            raise _last_admin(row)
        row.revoked_at = now_s()
    return next(key for key in list_keys(session) if key.id == key_id)


def _be_the_first(session: Session) -> None:
    """Until this transaction ends nobody else makes a key. Raises: Unauthorized."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE"))
    else:  # a write, be it of nothing, has SQLite's other writers wait
        session.execute(update(APIKeyRow).where(APIKeyRow.id == "").values(name=""))
    if session.scalar(select(APIKeyRow.id).limit(1)) is not None:
        raise Unauthorized(
            "This server's first API key was made just now, and from then on every request needs one, sent as "
            "`Authorization: Bearer KEY`. Send the request again with it."
        )


def _check(name: str, project: str) -> None:
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise BadRequest(
            f"name must be 1 to {MAX_NAME} printable characters that say who or what will use the key.",
            code="invalid_value",
            param="name",
        )
    if not PROJECT.fullmatch(project):
        raise BadRequest(
            f"project is {project[:100]!r}, but must be 1 to 64 letters, digits, hyphens or underscores, a letter or "
            "digit first, such as search.",
            code="invalid_value",
            param="project",
        )


def _admins_left(session: Session) -> int:
    good = select(func.count()).select_from(APIKeyRow).where(APIKeyRow.is_admin, APIKeyRow.revoked_at.is_(None))
    return session.scalar(good) or 0


def _last_admin(row: APIKeyRow) -> Conflict:
    return Conflict(
        f"{row.id} is the last admin's key: without it nobody can make keys or set up webhooks here. Make another "
        "admin's key first, or send force=true; then only `tuneloop keys create --admin` on the server's machine "
        "makes one.",
        code="last_admin_key",
        param="id",
    )
