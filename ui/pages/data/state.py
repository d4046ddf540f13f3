"""What a tab of the data page holds: the files, the one that is open, and what was found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from ui.frame.session import Session
from ui.server_client import Problem


@dataclass
class DataSession(Session):
    """One tab's state."""

    opened: bool = False
    """Whether `open` was ever called: a server that was started again meets tabs that it didn't open."""
    files: Sequence[Mapping[str, Any]] | None = None
    """Newest first; None until they could be listed."""
    file_id: str = ""
    """The file that is open; empty: none."""
    base: str = ""
    """The model in whose tokens is counted; empty: characters."""
    offset: int = 0
    """Examples before the page that is shown."""
    inspecting: bool = False
    report: Mapping[str, Any] | None = None
    report_problem: Problem | None = None
    page: Mapping[str, Any] | None = None
    cleaning: bool = False
    cleaned: Mapping[str, Any] | None = None
    cleaning_problem: Problem | None = None
    message: Markup = field(default_factory=Markup)
    """HTML of what was done last."""
    trouble: Problem | None = None

    @property
    def file(self) -> Mapping[str, Any] | None:
        """The open file, where it is among the listed."""
        return next((file for file in self.files or () if file["id"] == self.file_id), None)

    def open_file(self, file_id: str, base: str = "", offset: int = 0) -> None:
        """Another file: nothing that was found in the one before stays."""
        self.file_id, self.base, self.offset = file_id, base, offset
        self.report = self.report_problem = self.page = None
        self.cleaned = self.cleaning_problem = None
        self.inspecting = self.cleaning = False

    def query_now(self) -> dict[str, str]:
        """The address's query that brings all of it back."""
        query = {"file": self.file_id, "base": self.base, "offset": str(self.offset) if self.offset else ""}
        return {name: value for name, value in query.items() if value and (name == "file" or self.file_id)}
