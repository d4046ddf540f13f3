"""Files, and uploads that become files part by part."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from server.storage.tables.base import BIG, Base


class FileRow(Base):
    """One file; its content lies in the data directory under its id. https://platform.openai.com/docs/api-reference/files"""

    __tablename__ = "files"

    number: Mapped[int] = mapped_column(BIG, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    filename: Mapped[str]
    purpose: Mapped[str] = mapped_column(index=True)
    bytes: Mapped[int] = mapped_column(BIG)
    sha256: Mapped[str]
    status: Mapped[str]
    """`uploaded`, `processed` or `error`; `deleted` if it has expired or was deleted. A deleted row keeps only its
    place in the lists, for a client that pages on from it; its `expires_at` is in the past."""
    status_details: Mapped[str | None]
    created_at: Mapped[int]
    expires_at: Mapped[int | None]
    created_by: Mapped[str | None]
    """Id of the key; None on a keyless server."""


class UploadRow(Base):
    """One upload in parts. https://platform.openai.com/docs/api-reference/uploads"""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BIG)
    mime_type: Mapped[str]
    status: Mapped[str]
    """`pending`, `completed`, `cancelled` or `expired`."""
    created_at: Mapped[int]
    expires_at: Mapped[int]
    file_expires_after_s: Mapped[int | None]
    file_id: Mapped[str | None]
    created_by: Mapped[str | None]


class UploadPartRow(Base):
    """One part of an upload; its bytes lie beside the files."""

    __tablename__ = "upload_parts"

    id: Mapped[str] = mapped_column(primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), index=True)
    bytes: Mapped[int] = mapped_column(BIG)
    created_at: Mapped[int]
