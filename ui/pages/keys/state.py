"""What one tab of the keys page holds. A fresh key is held until the reader puts it away, and over no refresh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ui.frame.session import Session
from ui.pages.keys.calls import Overview, Row
from ui.server_client import Problem


@dataclass
class KeysSession(Session):
    """One tab's state."""

    overview: Overview = field(default_factory=Overview)
    admitted: bool = False
    """Whether the tab's key, or the lack of keys, opened the overview."""
    creating: bool = False
    """A key is being made."""
    fresh: Row | None = None
    """The key that was just made."""
    last_admin: str | None = None
    """Id of the last admin's key, which the reader tried to revoke."""
    trouble: Problem | None = None
    done: tuple[str, Mapping[str, object]] | None = None
    """Key and values of the sentence that says what was done last."""
    turn: int = 0
    """Counts actions: what each had to say takes the focus once."""

    def begin(self) -> None:
        """A new action: what the last one said is over."""
        self.trouble, self.done, self.last_admin, self.turn = None, None, None, self.turn + 1
