"""Aliases in the database: valid names, targets, rollbacks and history.

The database is authoritative; `cache` has the copy in memory. The caller has to check that a target exists and may be
used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import CursorResult, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from server.storage.tables import AliasChangeRow, AliasRow, new_id, now_s
from server.wire.errors import BadRequest, Conflict, NotFound
from serving.adapters.names import check_chosen_name
from serving.errors import AdapterError

MAX_TRAIL = 100
"""Most steps that an alias can be rolled back; its history is complete."""
_RESERVED_SUFFIXES = ("/history", "/rollback")
"""Endings of the paths below an alias; no name may end with them."""


def check_name(name: str) -> None:
    """Raise BadRequest unless this is a valid name for an alias."""
    try:
        check_chosen_name(name)
    except AdapterError as error:
        raise BadRequest(str(error), code="invalid_value", param="name") from error
    if name.endswith(_RESERVED_SUFFIXES):
        raise BadRequest(
            f"The alias {name!r} must not end with {' or '.join(_RESERVED_SUFFIXES)}: these are API paths of an "
            "alias. Choose another name.",
            code="invalid_value",
            param="name",
        )


def read_aliases(session: Session) -> Sequence[AliasRow]:
    """Return the existing aliases, sorted by name."""
    return session.scalars(select(AliasRow).where(AliasRow.model.is_not(None)).order_by(AliasRow.name)).all()


def find_models_in_use(session: Session) -> dict[str, str]:
    """Return model → an alias that stands for it."""
    return {str(row.model): row.name for row in read_aliases(session)}


def get(session: Session, name: str) -> AliasRow:
    """Return the alias of this name. Raises: NotFound."""
    row = session.get(AliasRow, name) if _is_valid_name(name) else None
    if row is None or row.model is None:
        raise alias_not_found_error(name)
    return row


def promote(session: Session, name: str, model: str, by: str | None) -> AliasRow:
    """Point the alias to `model` as of the commit, and return it; unchanged if it already stands for `model`.

    by: id of the key that requested it.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    blank: dict[str, Any] = {"name": name, "model": None, "trail": [], "created_at": now_s(), "updated_at": now_s()}
    session.execute(insert(AliasRow).values(blank).on_conflict_do_nothing())
    row = _lock_row(session, name)
    if row.model is None:
        row.trail, row.created_at = [], now_s()
    if row.model != model:
        _record_change(session, row, "promote", model, [*row.trail, model][-MAX_TRAIL:], by)
    return row


def roll_back(session: Session, name: str, model: str, by: str | None, *, expected_trail: Sequence[str]) -> AliasRow:
    """Point the alias back to `model`, drop what came after it from the trail, and return the alias.

    expected_trail: the trail by which `model` was chosen.

    Raises:
        NotFound: there is no such alias.
        Conflict: it has been changed since.
    """
    row = _lock_row(session, name)
    if row.model is None:
        raise alias_not_found_error(name)
    if row.trail != list(expected_trail):
        raise Conflict(
            f"The alias {name!r} was changed by another request; it now points to {row.model}. Check it and try again.",
            code="alias_changed",
            param="name",
        )
    _record_change(session, row, "rollback", model, _trim_trail(row.trail, model), by)
    return row


def delete(session: Session, name: str, by: str | None) -> AliasRow:
    """Delete the alias and return its row. Raises: NotFound."""
    row = _lock_row(session, name)
    if row.model is None:
        raise alias_not_found_error(name)
    _record_change(session, row, "delete", None, [], by)
    return row


def find_rollback_target(trail: Sequence[str], is_available: Callable[[str], bool]) -> tuple[str | None, list[str]]:
    """Return the target of a rollback, None if there is none, and the earlier models that were skipped as missing."""
    missing: list[str] = []
    for model in reversed(trail[:-1]):
        if model == trail[-1]:
            continue
        if is_available(model):
            return model, missing
        if model not in missing:
            missing.append(model)
    return None, missing


def no_previous_model_error(name: str, missing: Collection[str]) -> Conflict:
    """Return the error for an alias that never stood for another model that still exists."""
    why = f"its earlier models no longer exist: {', '.join(missing)}" if missing else "it has no earlier model"
    return Conflict(
        f"The alias {name!r} can't be rolled back: {why}. PUT /v1/aliases/{name} points it to another model.",
        code="no_previous_model",
        param="name",
    )


def has_stood_for(session: Session, name: str, model: str) -> bool:
    """Return whether the alias ever stood for this model."""
    query = select(AliasChangeRow.id).where(AliasChangeRow.alias == name, AliasChangeRow.to_model == model)
    return session.scalar(query.limit(1)) is not None


def refuse_in_use(aliases: Mapping[str, str], model: str) -> None:
    """Raise Conflict if one of these aliases stands for the model, so that it can't be deleted."""
    for alias, version in aliases.items():
        if version == model:
            raise Conflict(
                f"{model} can't be deleted, since the alias {alias!r} points to it. Point the alias to another model "
                f"first (PUT /v1/aliases/{alias}, or POST /v1/aliases/{alias}/rollback), or delete the alias "
                f"(DELETE /v1/aliases/{alias}).",
                code="model_in_use",
                param="model",
            )


def alias_not_found_error(name: str) -> NotFound:
    """Return the error for an alias that doesn't exist."""
    return NotFound(
        f"There is no alias {name[:200]!r}. GET /v1/aliases lists them.", code="alias_not_found", param="name"
    )


def _is_valid_name(name: str) -> bool:
    try:
        check_name(name)
    except BadRequest:
        return False
    return True


def _lock_row(session: Session, name: str) -> AliasRow:
    """Lock the alias's row until the transaction ends, and return it. Raises: NotFound."""
    # A write that changes nothing: SQLite would let two reads of the same state lead to conflicting writes.
    result = session.execute(update(AliasRow).where(AliasRow.name == name).values(name=AliasRow.name))
    if not cast("CursorResult[Any]", result).rowcount:
        raise alias_not_found_error(name)
    return session.scalars(
        select(AliasRow).where(AliasRow.name == name).execution_options(populate_existing=True)
    ).one()


def _record_change(
    session: Session, row: AliasRow, action: str, model: str | None, trail: list[str], by: str | None
) -> None:
    now = now_s()
    session.add(
        AliasChangeRow(
            id=new_id("aliaschg"), alias=row.name, action=action, from_model=row.model, to_model=model, created_at=now,
            created_by=by,
        )
    )  # fmt: skip
    row.model, row.trail, row.updated_at = model, trail, now


def _trim_trail(trail: Sequence[str], model: str) -> list[str]:
    """Return the trail up to its last occurrence of `model`, or with `model` appended if it has none."""
    before = list(trail[:-1])
    if model not in before:
        return [*trail, model][-MAX_TRAIL:]
    return before[: len(before) - before[::-1].index(model)]
