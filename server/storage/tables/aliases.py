"""Free names for model versions, and their history."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from server.storage.tables.base import BIG, Base


class AliasRow(Base):
    """One alias, a free name for a model. It stays when the alias is deleted: the next of its name goes on in its
    history, and two who make it at once meet in this row."""

    __tablename__ = "aliases"

    name: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str | None]
    """What answers to the name: a version, or a base's or remote model's name. None where the alias is deleted."""
    trail: Mapped[list[Any]]
    """The way back: what it was promoted to, what it stands for now last. A rollback takes from the end."""
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
