"""Aliases in the database: which names may be one, what each stands for, the way back, and who changed it.

The database is the truth. What a running server has of it in memory is in `cache`. Knows no engines and no access:
whoever calls has made sure that the model is there and may be used.
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
"""Steps that an alias can be rolled back by; its history has every one."""
_OURS = ("/history", "/rollback")
"""Ends of the paths that ask about an alias: no name may end so."""


def check_name(name: str) -> None:
    """Raises BadRequest unless an alias could be called so."""
    try:
        check_chosen_name(name)
    except AdapterError as error:
        raise BadRequest(str(error), code="invalid_value", param="name") from error
    if name.endswith(_OURS):
        raise BadRequest(
            f"The alias {name!r} must not end with {' or '.join(_OURS)}: such paths ask about an alias. "
            "Choose another name.",
            code="invalid_value",
            param="name",
        )


def live(session: Session) -> Sequence[AliasRow]:
    """The aliases that there are, by name."""
    return session.scalars(select(AliasRow).where(AliasRow.model.is_not(None)).order_by(AliasRow.name)).all()


def models_in_use(session: Session) -> dict[str, str]:
    """Model → an alias that stands for it."""
    return {str(row.model): row.name for row in live(session)}


def get(session: Session, name: str) -> AliasRow:
    """The alias of this name. Raises: NotFound."""
    row = session.get(AliasRow, name) if _is_name(name) else None
    if row is None or row.model is None:
        raise not_found(name)
    return row


def promote(session: Session, name: str, model: str, by: str | None) -> AliasRow:
    """The alias, which stands for `model` from the commit on; nothing is changed where it does already.

    by: id of the key that asked for it.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    blank: dict[str, Any] = {"name": name, "model": None, "trail": [], "created_at": now_s(), "updated_at": now_s()}
    session.execute(insert(AliasRow).values(blank).on_conflict_do_nothing())
    row = _locked(session, name)
    if row.model is None:
        row.trail, row.created_at = [], now_s()
    if row.model != model:
        _change(session, row, "promote", model, [*row.trail, model][-MAX_TRAIL:], by)
    return row


def roll_back(session: Session, name: str, model: str, by: str | None, *, seen: Sequence[str]) -> AliasRow:
    """The alias, which stands again for `model`: what it was promoted to since is off the trail.

    seen: the trail by which `model` was chosen.

    Raises:
        NotFound: there is no such alias.
        Conflict: somebody else has changed it since.
    """
    row = _locked(session, name)
    if row.model is None:
        raise not_found(name)
    if row.trail != list(seen):
        raise Conflict(
            f"Somebody else has just changed the alias {name!r}; it stands for {row.model} now. Look, and ask again.",
            code="alias_changed",
            param="name",
        )
    _change(session, row, "rollback", model, _cut(row.trail, model), by)
    return row


def delete(session: Session, name: str, by: str | None) -> AliasRow:
    """The alias as it is now that it stands for nothing. Raises: NotFound."""
    row = _locked(session, name)
    if row.model is None:
        raise not_found(name)
    _change(session, row, "delete", None, [], by)
    return row


def way_back(trail: Sequence[str], is_there: Callable[[str], bool]) -> tuple[str | None, list[str]]:
    """Where a rollback leads, None where there is nothing before; and what is passed over on the way, being gone."""
    gone: list[str] = []
    for model in reversed(trail[:-1]):
        if model == trail[-1]:
            continue
        if is_there(model):
            return model, gone
        if model not in gone:
            gone.append(model)
    return None, gone


def nothing_before(name: str, gone: Collection[str]) -> Conflict:
    """The refusal to roll back an alias that has stood for nothing else that is still there."""
    why = f"what it stood for before is gone: {', '.join(gone)}" if gone else "it has stood for nothing else"
    return Conflict(
        f"The alias {name!r} can't be rolled back: {why}. PUT /v1/aliases/{name} points it to another model.",
        code="no_previous_model",
        param="name",
    )


def was(session: Session, name: str, model: str) -> bool:
    """Whether the alias ever stood for this model."""
    known = select(AliasChangeRow.id).where(AliasChangeRow.alias == name, AliasChangeRow.to_model == model)
    return session.scalar(known.limit(1)) is not None


def refuse_in_use(aliases: Mapping[str, str], model: str) -> None:
    """Raises Conflict when one of these aliases stands for the model, so that it can't be deleted."""
    for alias, version in aliases.items():
        if version == model:
            raise Conflict(
                f"{model} is what the alias {alias!r} stands for, so it is kept. First point the alias to another "
                f"model (PUT /v1/aliases/{alias}, or POST /v1/aliases/{alias}/rollback), or delete it "
                f"(DELETE /v1/aliases/{alias}).",
                code="model_in_use",
                param="model",
            )


def not_found(name: str) -> NotFound:
    """The refusal of an alias that there isn't."""
    return NotFound(
        f"There is no alias {name[:200]!r}. GET /v1/aliases lists them.", code="alias_not_found", param="name"
    )


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except BadRequest:
        return False
    return True


def _locked(session: Session, name: str) -> AliasRow:
    """The alias's row, which nobody else changes before this transaction ends. Raises: NotFound."""
    # A write, be it of nothing: SQLite lets reads of the same state go on to contradicting writes.
    touched = session.execute(update(AliasRow).where(AliasRow.name == name).values(name=AliasRow.name))
    if not cast("CursorResult[Any]", touched).rowcount:
        raise not_found(name)
    return session.scalars(
        select(AliasRow).where(AliasRow.name == name).execution_options(populate_existing=True)
    ).one()


def _change(session: Session, row: AliasRow, action: str, model: str | None, trail: list[str], by: str | None) -> None:
    now = now_s()
    session.add(
        AliasChangeRow(
            id=new_id("aliaschg"), alias=row.name, action=action, from_model=row.model, to_model=model, created_at=now,
            created_by=by,
        )
    )  # fmt: skip
    row.model, row.trail, row.updated_at = model, trail, now


def _cut(trail: Sequence[str], model: str) -> list[str]:
    """The trail up to where it last was at `model`; one step longer where it never was."""
    before = list(trail[:-1])
    if model not in before:
        return [*trail, model][-MAX_TRAIL:]
    return before[: len(before) - before[::-1].index(model)]
