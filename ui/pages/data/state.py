"""The state of a tab of the data page: the files, the open file, and its report."""

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
    """Whether `open` was called: after a restart, the server gets requests from tabs that it didn't open."""
    files: Sequence[Mapping[str, Any]] | None = None
    """Newest first; None before they were listed."""
    file_id: str = ""
    """The open file; '' for none."""
    base: str = ""
    """The model whose tokens are counted; '' for characters."""
    offset: int = 0
    """Number of examples before the current page."""
    inspecting: bool = False
    report: Mapping[str, Any] | None = None
    report_problem: Problem | None = None
    page: Mapping[str, Any] | None = None
    cleaning: bool = False
    cleaned: Mapping[str, Any] | None = None
    cleaning_problem: Problem | None = None
    message: Markup = field(default_factory=Markup)
    """HTML of the message about the last action."""
    trouble: Problem | None = None

    @property
    def file(self) -> Mapping[str, Any] | None:
        """The open file, if it is in the list."""
        return next((file for file in self.files or () if file["id"] == self.file_id), None)

    def open_file(self, file_id: str, base: str = "", offset: int = 0) -> None:
        """Open another file and drop the results of the previous one."""
        self.file_id, self.base, self.offset = file_id, base, offset
        self.report = self.report_problem = self.page = None
        self.cleaned = self.cleaning_problem = None
        self.inspecting = self.cleaning = False

    def query_now(self) -> dict[str, str]:
        """Return the address's query that restores this state."""
        query = {"file": self.file_id, "base": self.base, "offset": str(self.offset) if self.offset else ""}
        return {name: value for name, value in query.items() if value and (name == "file" or self.file_id)}
