"""API keys."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from server.storage.tables.base import DEFAULT_PROJECT, Base


class APIKeyRow(Base):
    """One API key. The key itself is shown once and never stored: `sha256` is its hash (keys have 256 random bits)."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
    revoked_at: Mapped[int | None]
    project: Mapped[str] = mapped_column(default=DEFAULT_PROJECT)
    """The key's project: checkpoints are served to the project that made them, and to those it gave permission."""
    is_admin: Mapped[bool] = mapped_column(default=False)
    """Whether it may grant permissions and set up webhooks."""
