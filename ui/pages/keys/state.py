"""The state of a tab of the keys page. A new key is kept until the user dismisses it or refreshes the page."""

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
    """Whether the tab may see the page: it has an admin key, or the server works without keys."""
    creating: bool = False
    """Whether a key is being created."""
    fresh: Row | None = None
    """The key that was just created."""
    last_admin: str | None = None
    """Id of the last admin key, if the user tried to revoke it."""
    trouble: Problem | None = None
    done: tuple[str, Mapping[str, object]] | None = None
    """Key and values of the message about the last action."""
    turn: int = 0
    """Number of actions; each one's message takes the focus once."""

    def begin(self) -> None:
        """Start an action: clear the last one's message."""
        self.trouble, self.done, self.last_admin, self.turn = None, None, None, self.turn + 1
