"""The filters of the leaderboard. They are in the page's address, so a refresh and a shared link keep them.

Knows nothing of HTTP or HTML. Invalid values in the address are ignored.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ui.frame.live import Action


@dataclass(frozen=True)
class Filters:
    """The filters; '' means all."""

    campaign: str = ""
    after: str = ""
    """First day, YYYY-MM-DD in UTC."""
    before: str = ""
    """Last day."""
    rater: str = ""
    blind_only: bool = True
    style_control: bool = False

    @classmethod
    def of_query(cls, query: Mapping[str, str]) -> Filters:
        """Return the filters in the address."""
        return cls(
            campaign=query.get("campaign", ""),
            after=_day(query.get("after", "")),
            before=_day(query.get("before", "")),
            rater=query.get("rater", ""),
            blind_only=query.get("blind_only") != "false",
            style_control=query.get("style_control") == "true",
        )

    @classmethod
    def of_form(cls, action: Action) -> Filters:
        """Return the filters in the submitted form."""
        return cls(
            campaign=action.text("campaign"),
            after=_day(action.text("after")),
            before=_day(action.text("before")),
            rater=action.text("rater"),
            blind_only="blind_only" in action.checked_values("votes"),
            style_control="style_control" in action.checked_values("votes"),
        )

    def to_query(self) -> dict[str, str]:
        """Return the query for the address: only what differs from the default."""
        words = {"campaign": self.campaign, "after": self.after, "before": self.before, "rater": self.rater}
        query = {name: value for name, value in words.items() if value}
        query |= {} if self.blind_only else {"blind_only": "false"}
        return query | ({"style_control": "true"} if self.style_control else {})

    def to_api(self) -> dict[str, Any]:
        """Return the query of `GET /v1/leaderboard`; times in Unix seconds."""
        return {
            "campaign": self.campaign or None,
            "after": _unix_s(self.after),
            "before": _unix_s(self.before, days=1),
            "rater": self.rater or None,
            "blind_only": str(self.blind_only).lower(),
            "style_control": str(self.style_control).lower(),
        }


def _day(words: str) -> str:
    try:
        return datetime.date.fromisoformat(words).isoformat()
    except ValueError:
        return ""


def _unix_s(day: str, *, days: int = 0) -> int | None:
    if not day:
        return None
    midnight = datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC)
    return int(midnight.timestamp()) + days * 86_400
