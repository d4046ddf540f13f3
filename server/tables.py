"""The tables, in SQLAlchemy 2: API keys, comparisons and ratings. Their history is in `migrations/`.

Times are Unix seconds (UTC), as on the wire. Ids carry their kind as a prefix: `key_`, `cmp_`, `rating_`.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


def new_id(prefix: str) -> str:
    """A fresh random id such as `cmp_1f0c…` (96 bits)."""
    return f"{prefix}_{secrets.token_hex(12)}"


def now_s() -> int:
    """The time, in Unix seconds."""
    return int(time.time())


class Base(DeclarativeBase):
    """What all tables share."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012 (SQLAlchemy reads it as a class attribute)


class APIKeyRow(Base):
    """One API key. The key itself is shown once and never stored: `sha256` is its hash (keys have 256 random bits)."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
    revoked_at: Mapped[int | None]


class ComparisonRow(Base):
    """Two models' answers to the same messages, as this server generated them."""

    __tablename__ = "comparisons"
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[int]
    created_by: Mapped[str | None]
    blind: Mapped[bool]
    messages: Mapped[list[Any]]
    sampling: Mapped[dict[str, Any]]
    left: Mapped[dict[str, Any]]
    right: Mapped[dict[str, Any]]


class RatingRow(Base):
    """One rater's verdict on one comparison."""

    __tablename__ = "ratings"
    __table_args__ = (UniqueConstraint("comparison_id", "rater"), Index(None, "created_at", "id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    comparison_id: Mapped[str] = mapped_column(ForeignKey("comparisons.id"))
    created_at: Mapped[int]
    rater: Mapped[str]
    verdict: Mapped[str]
    dimensions: Mapped[dict[str, Any]]
    unsafe: Mapped[str | None]
    comment: Mapped[str | None]
    comparison: Mapped[ComparisonRow] = relationship(lazy="joined")
