"""Shared by all tables: constraint names, ids, the clock."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

from sqlalchemy import JSON, BigInteger, Integer, MetaData
from sqlalchemy.orm import DeclarativeBase

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

BIG = BigInteger().with_variant(Integer, "sqlite")
"""64 bits. SQLite's INTEGER has 64 bits too, and only a column of that name is auto-incremented."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
DEFAULT_PROJECT = "default"
"""The project of keys, files and jobs that name none, and of everything on a keyless server."""


def new_id(prefix: str) -> str:
    """Return a new random id (96 bits) such as `cmp_1f0c…`; a prefix that ends in a hyphen, like `file-`, gets no
    underscore."""
    separator = "" if prefix.endswith("-") else "_"
    return f"{prefix}{separator}{secrets.token_hex(12)}"


def is_id(text: str) -> bool:
    """Return whether `text` can be the id of a row. Anything else isn't looked up: the database might fail on it."""
    return _ID.fullmatch(text) is not None


def now_s() -> int:
    """Return the current time in Unix seconds."""
    return int(time.time())


class Base(DeclarativeBase):
    """Base class of all tables."""

    metadata = MetaData(naming_convention=NAMING)
    _json = JSON(none_as_null=True)
    type_annotation_map = {dict[str, Any]: _json, list[Any]: _json}  # noqa: RUF012 (SQLAlchemy reads it as a class attribute)
