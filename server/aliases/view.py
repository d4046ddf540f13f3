"""Aliases as one caller sees them: the list, rollback targets and the history. Read only.

A caller who may not use a checkpoint sees neither its aliases nor its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from server.access.checkpoints import find_foreign, find_hidden
from server.access.keys import Caller
from server.aliases import changes
from server.storage.list_pages import fetch_page
from server.storage.tables import AliasChangeRow, AliasRow
from server.wire.errors import BadRequest, Conflict
from serving import Registry


@dataclass(frozen=True)
class AliasView:
    """The aliases of one database, for one caller, in one transaction."""

    session: Session
    registry: Registry
    caller: Caller

    def get(self, name: str) -> AliasRow:
        """Return the alias. Raises: NotFound."""
        row = changes.get(self.session, name)
        if self._is_foreign(row):
            raise changes.alias_not_found_error(name)
        return row

    def list_all(self) -> list[AliasRow]:
        """Return every alias that is visible to the caller, sorted by name."""
        rows = changes.read_aliases(self.session)
        foreign = find_foreign(self.session, self.caller, [str(row.model) for row in rows])
        return [row for row in rows if row.model not in foreign]

    def refuse_foreign(self, name: str) -> None:
        """Raise Conflict if the alias exists and this caller may not change it."""
        row = self.session.get(AliasRow, name)
        if row is not None and self._is_foreign(row):
            raise Conflict(
                f"The name {name!r} is already used in another project. Choose another name.",
                code="alias_name_taken",
                param="name",
            )

    def find_rollback_target(self, name: str, requested: str | None) -> tuple[AliasRow, str, list[str]]:
        """Return the alias, the model to roll it back to, and the models that were skipped as missing.

        requested: a model that it stood for; None for the previous one.

        Raises:
            NotFound: there is no such alias.
            Conflict: there is no previous model.
            BadRequest: it never stood for `requested`.
        """
        row = self.get(name)
        if requested is None:
            model, skipped = changes.find_rollback_target(row.trail, self._find_available(row.trail).__contains__)
            foreign = find_foreign(self.session, self.caller, skipped)
            gone = [skip for skip in skipped if skip not in foreign]
            if model is None:
                raise changes.no_previous_model_error(name, gone)
            return row, model, gone
        if not changes.has_stood_for(self.session, name, requested):
            raise BadRequest(
                f"The alias {name!r} never pointed to {requested[:200]!r}. GET /v1/aliases/{name}/history lists its "
                "earlier models; use PUT for a new one.",
                code="model_not_in_history",
                param="model",
            )
        return row, requested, []

    def list_history(self, name: str, *, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Return a page of the alias's changes, newest first, and whether there are more; also for a deleted alias.

        Raises:
            NotFound: there has never been such an alias.
            BadRequest: `after` isn't one of its changes.
        """
        of_it = AliasChangeRow.alias == name
        if self.session.scalar(select(AliasChangeRow.id).where(of_it).limit(1)) is None:
            raise changes.alias_not_found_error(name)
        row = self.session.get(AliasRow, name)
        if row is not None and self._is_foreign(row):
            raise changes.alias_not_found_error(name)
        rows, has_more = fetch_page(self.session, AliasChangeRow, of_it, after=after, limit=limit)
        models = {model for row in rows for model in (row.from_model, row.to_model) if model}
        foreign = find_foreign(self.session, self.caller, models)
        return [_build_change_object(row, foreign) for row in rows], has_more

    def build_objects(self, rows: Sequence[AliasRow]) -> list[dict[str, Any]]:
        """Return the aliases as the API's objects; `previous_model` is the target of a rollback."""
        available = self._find_available({model for row in rows for model in row.trail})
        return [
            _build_alias_object(row, changes.find_rollback_target(row.trail, available.__contains__)[0]) for row in rows
        ]

    def _is_foreign(self, row: AliasRow) -> bool:
        return bool(find_foreign(self.session, self.caller, [str(row.model)]))

    def _find_available(self, models: Iterable[str]) -> frozenset[str]:
        """Return those of the models that the caller can use."""
        available = frozenset(models).intersection(self.registry.names())
        return available - find_hidden(self.session, self.caller, available)


def _build_alias_object(row: AliasRow, previous_model: str | None) -> dict[str, Any]:
    return {
        "id": row.name,
        "object": "alias",
        "name": row.name,
        "model": row.model,
        "previous_model": previous_model,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _build_change_object(row: AliasChangeRow, foreign: frozenset[str]) -> dict[str, Any]:
    """foreign: models whose names are hidden from the caller."""
    return {
        "id": row.id,
        "object": "alias.change",
        "action": row.action,
        "from": None if row.from_model in foreign else row.from_model,
        "to": None if row.to_model in foreign else row.to_model,
        "created_at": row.created_at,
        "created_by": row.created_by,
    }
