"""Which votes the leaderboard counts, as it stands in the page's address: a refresh and a sent link keep it.

Knows nothing of HTTP or HTML. A strange value in the address is dropped, never refused.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ui.frame.live import Action


@dataclass(frozen=True)
class Filters:
    """The filters; '' counts everything."""

    campaign: str = ""
    after: str = ""
    """First day that counts, YYYY-MM-DD in UTC."""
    before: str = ""
    """Last day that counts."""
    rater: str = ""
    blind_only: bool = True
    style_control: bool = False

    @classmethod
    def of_query(cls, query: Mapping[str, str]) -> Filters:
        """From the address."""
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
        """From the form as it was sent."""
        return cls(
            campaign=action.text("campaign"),
            after=_day(action.text("after")),
            before=_day(action.text("before")),
            rater=action.text("rater"),
            blind_only="blind_only" in action.checked_values("votes"),
            style_control="style_control" in action.checked_values("votes"),
        )

    def to_query(self) -> dict[str, str]:
        """For the address: only what differs from the beginning."""
        words = {"campaign": self.campaign, "after": self.after, "before": self.before, "rater": self.rater}
        query = {name: value for name, value in words.items() if value}
        query |= {} if self.blind_only else {"blind_only": "false"}
        return query | ({"style_control": "true"} if self.style_control else {})

    def to_api(self) -> dict[str, Any]:
        """The query of `GET /v1/leaderboard`; times in Unix seconds."""
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
