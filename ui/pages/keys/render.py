"""The keys page's HTML: keys, the one that was just made, webhooks and settings.

Every foreign word is escaped here. Knows nothing of HTTP or Gradio; what its buttons mean stands in `page`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from html import escape
from typing import Any

from ui.html import elements
from ui.pages.keys.calls import Row
from ui.pages.keys.state import KeysSession
from ui.words.i18n import Language, text


def said(language: Language, key: str, **values: object) -> str:
    """A text, escaped."""
    return escape(text(language, key, **values))


def with_code(words: str) -> str:
    """Text in which what stands between backquotes is code; escaped."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words))


def heading(session: KeysSession) -> str:
    """Title and what the page is for."""
    title, intro = said(session.language, "keys.title"), said(session.language, "keys.intro")
    return f'<h1 class="tl-title">{title}</h1><p class="tl-muted">{intro}</p>'


def notice(session: KeysSession) -> str:
    """The fresh key, or what was done or refused last; it takes the focus once."""
    language = session.language
    if session.last_admin:
        shown = _last_admin(session)
    elif session.trouble is not None:
        shown = elements.problem_box(session.trouble, language)
    elif session.fresh is not None:
        shown = _fresh(language, session.fresh)
    elif session.done is not None:
        key, values = session.done
        shown = f'<div class="keys-done" role="status">✓ {said(language, key, **values)}</div>'
    else:
        return ""
    return f'<div tabindex="-1" data-focus="{session.turn}">{shown}</div>'


def _fresh(language: Language, key: Row) -> str:
    """The one time that the key is shown."""
    first = f"<p><b>{said(language, 'keys.first')}</b></p>" if key.get("notice") else ""
    return (
        f'<div class="keys-fresh"><p><b>{said(language, "keys.fresh", name=key["name"])}</b></p>'
        f'<p>{said(language, "keys.fresh.once")}</p><div class="live-row"><code class="keys-secret" id="keys-secret">'
        f'{escape(key["key"])}</code><button type="button" class="live-button live-small" id="keys-copy" '
        f'data-copy-text="keys-secret" data-copied="{said(language, "keys.copied")}">{said(language, "keys.copy")}'
        f'</button><button type="button" class="live-button live-small" id="keys-put-away" data-do="put_away">'
        f"{said(language, 'keys.put_away')}</button></div>{first}</div>"
    )


def _last_admin(session: KeysSession) -> str:
    language = session.language
    button = (
        f'<button type="button" class="live-button live-small live-danger" id="keys-force" data-do="force" '
        f'data-key="{escape(str(session.last_admin))}" data-confirm="{said(language, "keys.force.sure")}">'
        f"{said(language, 'keys.force')}</button>"
    )
    words = with_code(text(language, "keys.last_admin"))
    return f'<div class="tl-problem" role="alert"><p>{words}</p><p>{button}</p></div>'


def keys(session: KeysSession) -> str:
    """The keys, or that there are none; and the form that makes one."""
    if not session.admitted:
        return ""
    language, listed = session.language, session.office.keys
    shown = _table(
        language, "keys.keys", ("name", "project", "key", "created", "state"), (_key(session, key) for key in listed)
    )
    keyless = f'<div class="tl-notice">{with_code(text(language, "keys.keyless"))}</div>'
    return (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "keys.keys")}</h2>'
        f"{shown if listed else keyless}{_form(session)}</section>"
    )


def _key(session: KeysSession, key: Row) -> Sequence[str]:
    language = session.language
    signs = "".join(
        f' <span class="keys-sign">{said(language, f"keys.sign.{sign}")}</span>'
        for sign, is_so in (("admin", key["is_admin"]), ("current", key["current"]))
        if is_so
    )
    name = f"<bdi>{escape(key['name'])}</bdi>{signs}"
    secret = f'<span class="live-name">{escape(key["redacted_key"])}</span>'
    return (name, escape(key["project"]), secret, date(key["created_at"]), _revocation(language, key))


def _revocation(language: Language, key: Row) -> str:
    if key["revoked_at"] is not None:
        return f'<span class="tl-muted">{said(language, "keys.revoked", date=date(key["revoked_at"]))}</span>'
    question = "keys.revoke.own" if key["current"] else "keys.revoke.sure"
    return (
        f'<button type="button" class="live-button live-small live-danger" id="revoke-{escape(key["id"])}" '
        f'data-do="revoke" data-key="{escape(key["id"])}" data-confirm="{said(language, question, name=key["name"])}">'
        f'{said(language, "keys.revoke")}<span class="live-hidden"> {escape(key["name"])}</span></button>'
    )


def _form(session: KeysSession) -> str:
    language, first = session.language, session.office.keyless
    example = said(language, "keys.name.example")
    fields = _field(language, "name", f'maxlength="100" placeholder="{example}" required')
    fields += _field(language, "project", 'maxlength="64" placeholder="default"')
    fields += "" if first else _rights(language)
    return (
        f'<form class="keys-form" data-do="create">{fields}<button class="live-button live-primary" id="keys-create">'
        f"{said(language, 'keys.create_first' if first else 'keys.create')}</button></form>"
        f'<p class="live-hint">{said(language, "keys.project.info")}</p>'
    )


def _field(language: Language, name: str, more: str) -> str:
    return (
        f'<div><label class="live-label" for="keys-{name}">{said(language, f"keys.{name}")}</label>'
        f'<input class="live-field" id="keys-{name}" name="{name}" autocomplete="off" {more}></div>'
    )


def _rights(language: Language) -> str:
    return (
        f'<fieldset class="keys-admin"><legend class="live-hidden">{said(language, "keys.rights")}</legend><label>'
        f'<input type="checkbox" name="admin" value="yes" id="keys-admin"> {said(language, "keys.admin")}</label>'
        "</fieldset>"
    )


def webhooks(session: KeysSession) -> str:
    """Where events are sent to; made and changed over the API."""
    if not session.admitted:
        return ""
    language, listed = session.language, session.office.webhooks
    rows = (
        (
            escape(one["name"]),
            f'<span class="live-name">{escape(one["url"])}</span>',
            escape(", ".join(one["event_types"])),
        )
        for one in listed
    )
    shown = _table(language, "keys.webhooks", ("name", "url", "events"), rows)
    none = f'<p class="tl-muted">{with_code(text(language, "keys.webhooks.none"))}</p>'
    return (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "keys.webhooks")}</h2>'
        f"{shown if listed else none}</section>"
    )


def settings(session: KeysSession) -> str:
    """What was set, then all the rest, folded."""
    if not session.admitted:
        return ""
    language, listed = session.language, session.office.settings
    chosen = [one for one in listed if one["origin"] != "default"]
    rest = [one for one in listed if one["origin"] == "default"]
    columns = ("setting", "value", "origin", "meaning")
    shown = _table(language, "keys.settings", columns, (_setting(language, one) for one in chosen))
    none = f'<p class="tl-muted">{said(language, "keys.settings.none")}</p>'
    folded = _table(language, "keys.settings.rest", columns, (_setting(language, one) for one in rest))
    return (
        f'<section class="live-card"><h2 class="live-h2">{said(language, "keys.settings")}</h2>'
        f'<p class="tl-muted">{with_code(text(language, "keys.settings.intro"))}</p>'
        f'{shown if chosen else none}<details class="keys-rest"><summary>'
        f"{said(language, 'keys.settings.all', count=len(rest))}</summary>{folded}</details></section>"
    )


def _setting(language: Language, one: Row) -> Sequence[str]:
    unset = f'<span class="tl-muted">{said(language, "keys.unset")}</span>'
    value = unset if one["value"] is None else f'<span class="live-name">{escape(one["value"])}</span>'
    origin = said(language, "keys.default") if one["origin"] == "default" else escape(one["origin"])
    return (f"<code>{escape(one['id'])}</code>", value, origin, escape(one["description"]))


def _table(language: Language, label: str, columns: Sequence[str], rows: Any) -> str:
    """rows: cells of HTML; the first of each row is its heading."""
    heads = "".join(f"<th scope=col>{said(language, f'keys.column.{name}')}</th>" for name in columns)
    labels = [said(language, f"keys.column.{name}") for name in columns[1:]]
    body = "".join(f"<tr><th scope=row>{first}</th>{_cells(labels, others)}</tr>" for first, *others in rows)
    return (
        f'<div class="live-scroll" tabindex="0" role="region" aria-label="{said(language, label)}">'
        f'<table class="live-table keys-table"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cells(labels: Sequence[str], cells: Sequence[str]) -> str:
    """Each with its column's heading, which a phone shows beside it."""
    return "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in zip(labels, cells, strict=True))


def date(unix_s: int) -> str:
    """A day, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(unix_s))
