"""The keys page's HTML: keys, the new key, webhooks and settings.

Knows nothing of HTTP or Gradio; `page` defines what its buttons do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ui.html import elements
from ui.html.templates import render
from ui.pages.keys.chinese_settings import SETTINGS_IN_CHINESE
from ui.pages.keys.state import KeysSession
from ui.words.i18n import Language, text


def heading(session: KeysSession) -> str:
    """Return title and introduction."""
    return render("pages/keys/templates/heading.html", session.language)


def notice(session: KeysSession) -> str:
    """Return the new key, or the message about the last action; it takes the focus once."""
    trouble, fresh, done = session.trouble, session.fresh, session.done
    if not (session.last_admin or trouble or fresh or done):
        return ""
    return render(
        "pages/keys/templates/notice.html",
        session.language,
        turn=session.turn,
        last_admin=session.last_admin,
        problem=Markup(elements.problem_box(trouble, session.language)) if trouble else None,  # noqa: S704 (escaped there)
        fresh=fresh,
        done=text(session.language, done[0], **done[1]) if done else None,
    )


def keys(session: KeysSession) -> str:
    """Return the keys, or a note that there are none, and the form for a new one."""
    if not session.admitted:
        return ""
    columns = _columns(session.language, "name", "project", "key", "created", "state")
    return render(
        "pages/keys/templates/keys.html", session.language, keys=session.overview.keys, columns=columns, date=date
    )


def webhooks(session: KeysSession) -> str:
    """Return the webhook endpoints, which are created and changed over the API."""
    if not session.admitted:
        return ""
    columns = _columns(session.language, "name", "url", "events")
    return render(
        "pages/keys/templates/webhooks.html", session.language, webhooks=session.overview.webhooks, columns=columns
    )


def settings(session: KeysSession) -> str:
    """Return the settings that were set, then all others, collapsed."""
    if not session.admitted:
        return ""
    listed = [dict(one, description=_describe(one, session.language)) for one in session.overview.settings]
    return render(
        "pages/keys/templates/settings.html",
        session.language,
        chosen=[one for one in listed if one["origin"] != "default"],
        rest=[one for one in listed if one["origin"] == "default"],
        columns=_columns(session.language, "setting", "value", "origin", "meaning"),
    )


def _describe(setting: Mapping[str, Any], language: Language) -> str:
    english: str = setting["description"]
    return SETTINGS_IN_CHINESE.get(setting["id"], english) if language == "zh" else english


def _columns(language: Language, *names: str) -> Sequence[str]:
    return [text(language, f"keys.column.{name}") for name in names]


def date(unix_s: int) -> str:
    """Return a day in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(unix_s))
