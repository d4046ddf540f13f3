"""What all tables share: naming, ids, the clock."""

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
"""64 bits; SQLite's INTEGER has them, and counts up by itself only under that name."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
DEFAULT_PROJECT = "default"
"""Where keys, files and jobs belong that name no project, and all of a server without keys."""


def new_id(prefix: str) -> str:
    """A fresh random id (96 bits): `cmp_1f0c…`; a prefix that ends in a hyphen, such as `file-`, is taken as it is."""
    separator = "" if prefix.endswith("-") else "_"
    return f"{prefix}{separator}{secrets.token_hex(12)}"


def is_id(text: str) -> bool:
    """Whether `text` can be the id of a row; of anything else a database needn't be asked, which may choke on it."""
    return _ID.fullmatch(text) is not None


def now_s() -> int:
    """The time, in Unix seconds."""
    return int(time.time())


class Base(DeclarativeBase):
    """What all tables share."""

    metadata = MetaData(naming_convention=NAMING)
    _json = JSON(none_as_null=True)
    type_annotation_map = {dict[str, Any]: _json, list[Any]: _json}  # noqa: RUF012 (SQLAlchemy reads it as a class attribute)
