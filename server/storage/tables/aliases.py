"""Aliases of models, and their history."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from server.storage.tables.base import BIG, Base


class AliasRow(Base):
    """One alias: a name that stands for a model. The row outlives the alias: a later alias of the same name continues
    its history, and two requests that create it at once are serialized by this row."""

    __tablename__ = "aliases"

    name: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str | None]
    """The model it stands for: a version, or the name of a base or remote model. None if the alias is deleted."""
    trail: Mapped[list[Any]]
    """The models it was promoted to, the current one last. A rollback removes from the end."""
    created_at: Mapped[int]
    updated_at: Mapped[int]


class AliasChangeRow(Base):
    """One change of an alias. Rows are added and never changed."""

    __tablename__ = "alias_changes"
    __table_args__ = (Index(None, "alias", "number"),)

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    alias: Mapped[str]
    action: Mapped[str]
    """`promote`, `rollback` or `delete`."""
    from_model: Mapped[str | None]
    to_model: Mapped[str | None]
    created_at: Mapped[int]
    created_by: Mapped[str | None]
    """Id of the key; None on a keyless server and from the command line."""
