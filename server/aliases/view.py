"""Aliases as one caller sees them: which are there, where a rollback leads, what the history tells.

Who may not use a checkpoint sees neither its aliases nor its name. Changes nothing, and knows no requests.
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
        """The alias. Raises: NotFound."""
        row = changes.get(self.session, name)
        if self._is_foreign(row):
            raise changes.not_found(name)
        return row

    def all(self) -> list[AliasRow]:
        """Every alias that is there for the caller, by name."""
        rows = changes.live(self.session)
        foreign = find_foreign(self.session, self.caller, [str(row.model) for row in rows])
        return [row for row in rows if row.model not in foreign]

    def refuse_foreign(self, name: str) -> None:
        """Raises Conflict where there is such an alias and it isn't this caller's to change."""
        row = self.session.get(AliasRow, name)
        if row is not None and self._is_foreign(row):
            raise Conflict(
                f"The name {name!r} is in use for a model of another project. Choose another.",
                code="alias_name_taken",
                param="name",
            )

    def way_back(self, name: str, wanted: str | None) -> tuple[AliasRow, str, list[str]]:
        """The alias, the model that it is to be rolled back to, and what is passed over, being gone.

        wanted: one that it stood for; None for the one before.

        Raises:
            NotFound: there is no such alias.
            Conflict: there is nothing before.
            BadRequest: it never stood for `wanted`.
        """
        row = self.get(name)
        if wanted is None:
            model, passed = changes.way_back(row.trail, self._there(row.trail).__contains__)
            foreign = find_foreign(self.session, self.caller, passed)
            gone = [one for one in passed if one not in foreign]
            if model is None:
                raise changes.nothing_before(name, gone)
            return row, model, gone
        if not changes.was(self.session, name, wanted):
            raise BadRequest(
                f"The alias {name!r} never stood for {wanted[:200]!r}. GET /v1/aliases/{name}/history lists what it "
                "stood for; PUT points it to something new.",
                code="model_not_in_history",
                param="model",
            )
        return row, wanted, []

    def history(self, name: str, *, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """A page of the alias's changes, newest first, and whether there are more; a deleted alias has them, too.

        Raises:
            NotFound: there never was such an alias.
            BadRequest: `after` is none of its changes.
        """
        of_it = AliasChangeRow.alias == name
        if self.session.scalar(select(AliasChangeRow.id).where(of_it).limit(1)) is None:
            raise changes.not_found(name)
        row = self.session.get(AliasRow, name)
        if row is not None and self._is_foreign(row):
            raise changes.not_found(name)
        rows, has_more = fetch_page(self.session, AliasChangeRow, of_it, after=after, limit=limit)
        told = {model for row in rows for model in (row.from_model, row.to_model) if model}
        foreign = find_foreign(self.session, self.caller, told)
        return [_change_object(row, foreign) for row in rows], has_more

    def objects(self, rows: Sequence[AliasRow]) -> list[dict[str, Any]]:
        """The aliases on the wire; `previous_model` is where a rollback leads."""
        there = self._there({model for row in rows for model in row.trail})
        return [_alias_object(row, changes.way_back(row.trail, there.__contains__)[0]) for row in rows]

    def _is_foreign(self, row: AliasRow) -> bool:
        return bool(find_foreign(self.session, self.caller, [str(row.model)]))

    def _there(self, models: Iterable[str]) -> frozenset[str]:
        """Those of these models that the caller can ask for."""
        there = frozenset(models).intersection(self.registry.names())
        return there - find_hidden(self.session, self.caller, there)


def _alias_object(row: AliasRow, previous_model: str | None) -> dict[str, Any]:
    return {
        "id": row.name,
        "object": "alias",
        "name": row.name,
        "model": row.model,
        "previous_model": previous_model,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _change_object(row: AliasChangeRow, foreign: frozenset[str]) -> dict[str, Any]:
    """foreign: models whose names the caller isn't told."""
    return {
        "id": row.id,
        "object": "alias.change",
        "action": row.action,
        "from": None if row.from_model in foreign else row.from_model,
        "to": None if row.to_model in foreign else row.to_model,
        "created_at": row.created_at,
        "created_by": row.created_by,
    }
